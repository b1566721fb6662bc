"""What the outstanding leases add up to, and what it costs to ask."""

from collections.abc import Iterator

from cluster.replay.rules.leases import Leases, Row, Unit


class Counted(tuple[Row[str], ...]):
    """Rows that count how often they were gone through."""

    times = 0

    def __iter__(self) -> Iterator[Row[str]]:
        Counted.times += 1
        return super().__iter__()


def unit(game_id: int, *versions: int) -> Unit[str]:
    rows = Counted(Row(f"{game_id}/{k}", version, "place") for k, version in enumerate(versions))
    return Unit(game_id, min(versions, default=None), rows, "harmful")


def test_rows_and_staleness_add_up_over_leases_acknowledgements_and_rewinds() -> None:
    leases: Leases[str] = Leases()
    leases.add(0, 3, [unit(1, 3, 1), unit(2)])  # 0 and 2 versions old
    leases.add(1, 4, [unit(3, 4), unit(4, 1)])  # 0 and 3
    leases.add(2, 5, [unit(5, 0)])  # 5
    assert (leases.rows, leases.staleness_sum, leases.max_staleness) == (5, 10, 5)
    leases.acknowledge(1)
    assert (leases.learned, leases.rows, leases.staleness_sum, leases.max_staleness) == (2, 3, 10, 5)
    assert [u.game_id for u in leases.rewind(2)] == [5]
    assert (leases.learned, leases.rows, leases.staleness_sum, leases.max_staleness) == (2, 2, 5, 3)
    leases.acknowledge(2)
    assert (leases.learned, leases.rows, leases.staleness_sum, leases.max_staleness) == (4, 0, 5, 3)


def test_a_lease_that_is_given_again_under_its_step_counts_once() -> None:
    leases: Leases[str] = Leases()
    leases.add(0, 2, [unit(1, 0)])
    leases.rewind(0)
    leases.add(0, 1, [unit(1, 0), unit(2, 1)])
    assert (leases.rows, leases.staleness_sum, leases.max_staleness) == (2, 1, 1)


def test_asking_goes_through_no_row() -> None:
    leases: Leases[str] = Leases()
    leases.add(0, 1, [unit(k, 0, 1) for k in range(10)])
    Counted.times = 0
    assert (leases.rows, leases.staleness_sum, leases.max_staleness) == (20, 10, 1)
    leases.acknowledge(1)
    assert leases.learned == 20
    assert Counted.times == 0
