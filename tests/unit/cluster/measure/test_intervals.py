"""Intervals against published values: Newcombe (1998a, b), Student's tables, and the coverage of the bootstrap."""

import numpy as np
import pytest

from cluster.measure.intervals import Interval, bootstrap, newcombe, t_interval, t_quantile, wilson


@pytest.mark.parametrize(
    ("hits", "n", "low", "high"),
    [
        (81, 263, 0.2553, 0.3662),  # Newcombe 1998, Two-sided confidence intervals for the single proportion, table I
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
        (29, 29, 1 - 0.1170, 1.0),
    ],
)
def test_wilson_as_published(hits: int, n: int, low: float, high: float) -> None:
    got = wilson(hits, n)
    assert got.value == hits / n
    assert (got.low, got.high) == pytest.approx((low, high), abs=6e-5)


@pytest.mark.parametrize(
    ("after", "n_after", "before", "n_before", "low", "high"),
    [
        (56, 70, 48, 80, 0.0524, 0.3339),  # Newcombe 1998, Interval estimation for the difference, table II, method 10
        (9, 10, 3, 10, 0.1705, 0.8090),
        (6, 7, 2, 7, 0.0582, 0.8062),
        (5, 56, 0, 29, -0.0381, 0.1926),
        (0, 10, 0, 20, -0.1611, 0.2775),
        (10, 10, 0, 20, 0.6791, 1.0),
    ],
)
def test_newcombe_as_published(after: int, n_after: int, before: int, n_before: int, low: float, high: float) -> None:
    got = newcombe(before, n_before, after, n_after)
    assert (got.low, got.high) == pytest.approx((low, high), abs=6e-5)
    mirrored = newcombe(after, n_after, before, n_before)
    assert (mirrored.low, mirrored.high) == pytest.approx((-got.high, -got.low))


@pytest.mark.parametrize(("hits", "n"), [(0, 0), (3, 2), (-1, 5)])
def test_what_is_no_fraction_has_no_interval(hits: int, n: int) -> None:
    with pytest.raises(ValueError, match="are no fraction"):
        wilson(hits, n)


@pytest.mark.parametrize(
    ("p", "df", "value"),
    [
        (0.975, 1, 12.7062),
        (0.975, 2, 4.3027),
        (0.975, 3, 3.1824),
        (0.975, 4, 2.7764),
        (0.975, 9, 2.2622),
        (0.975, 30, 2.0423),
        (0.975, 120, 1.9799),
        (0.95, 5, 2.0150),
        (0.995, 7, 3.4995),
        (0.5, 6, 0.0),
    ],
)
def test_students_t_as_in_the_tables(p: float, df: int, value: float) -> None:
    assert t_quantile(p, df) == pytest.approx(value, abs=5e-5)


def test_the_mean_of_five_seeds() -> None:
    # 1..5: mean 3, standard error sqrt(2.5 / 5) = 0.70711, times 2.7764
    got = t_interval([1.0, 2.0, 3.0, 4.0, 5.0])
    assert (got.value, got.low, got.high) == pytest.approx((3.0, 1.0368, 4.9632), abs=1e-4)
    assert t_interval([0.5, 0.5]) == Interval(0.5, 0.5, 0.5)
    with pytest.raises(ValueError, match="at least 2"):
        t_interval([1.0])


def test_the_bootstrap_of_a_mean_is_repeatable_and_close_to_the_normal_interval() -> None:
    x = np.random.default_rng(1).normal(10.0, 2.0, 400)
    got = bootstrap(400, lambda at: float(x[at].mean()))
    assert got is not None and got == bootstrap(400, lambda at: float(x[at].mean()))
    half = 1.96 * x.std() / 20
    assert (got.low, got.high) == pytest.approx((x.mean() - half, x.mean() + half), abs=0.03)


def test_the_bootstrap_leaves_undefined_resamples_out_and_says_where_nothing_is_defined() -> None:
    hits = np.array([True, False, False])
    got = bootstrap(3, lambda at: 1.0 if hits[at].any() else None)
    assert got == Interval(1.0, 1.0, 1.0)
    assert bootstrap(3, lambda at: None) is None
    assert bootstrap(0, lambda at: 1.0) is None and bootstrap(1, lambda at: 1.0) is None
