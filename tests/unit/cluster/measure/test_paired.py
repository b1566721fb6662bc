"""McNemar's test and the paired change, against scipy and by hand."""

import numpy as np
import pytest
from scipy import stats

from cluster.measure.paired import compare, mcnemar


@pytest.mark.parametrize(("b", "c"), [(0, 1), (1, 1), (3, 9), (10, 2), (0, 20), (7, 8), (40, 61), (500, 430)])
def test_mcnemar_is_scipys_binomial_test_of_the_discordant_pairs(b: int, c: int) -> None:
    assert mcnemar(b, c) == pytest.approx(stats.binomtest(min(b, c), b + c, 0.5).pvalue, rel=1e-12)
    assert mcnemar(b, c) == mcnemar(c, b)


def test_mcnemar_by_hand_and_where_nothing_differs() -> None:
    assert mcnemar(1, 5) == pytest.approx(2 * (1 + 6) / 64)
    assert mcnemar(0, 0) == 1.0
    with pytest.raises(ValueError, match="are no counts"):
        mcnemar(-1, 2)


def test_the_change_is_the_bootstrap_of_the_paired_differences_as_scipy_takes_it() -> None:
    rng = np.random.default_rng(3)
    mine, theirs = rng.integers(0, 4, 200) / 3, rng.integers(0, 4, 200) / 3
    keys = [str(k) for k in range(200)]
    got = compare({}, {}, dict(zip(keys, mine, strict=True)), dict(zip(keys, theirs, strict=True))).change
    want = stats.bootstrap(
        (mine, theirs), lambda a, b, axis: np.mean(a - b, axis=axis), paired=True, vectorized=True, method="percentile",
        n_resamples=10_000, rng=np.random.default_rng(0),
    ).confidence_interval  # fmt: skip
    assert got is not None
    assert got.value == pytest.approx(mine.mean() - theirs.mean())
    assert (got.low, got.high) == pytest.approx((want.low, want.high), abs=0.006)


def test_only_prompts_of_both_are_compared() -> None:
    hits = {"a": True, "b": True, "c": False, "d": False}
    others = {"a": False, "b": True, "c": True, "e": True}
    got = compare(hits, others, {"a": 1.0, "b": 0.5}, {"a": 0.0, "b": 0.5, "z": 1.0})
    assert (got.n, got.only_target, got.only_against, got.p, got.n_change) == (3, 1, 1, 1.0, 2)
    assert got.change is not None and got.change.value == 0.5
