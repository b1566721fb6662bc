"""The cache of verdicts: what is cached, under which question, and what is evicted first."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from judge.cache import VerdictCache, digest_question
from protocol.types import JudgeRequest, Verdict

REQUEST = JudgeRequest("compliance", "benign", "fix a bike", ("sure", "no"), seed=3)


def verdict(score: float, raw: str = "") -> Verdict:
    return Verdict("fake", "fake@1", scores=(score,), raw=raw)


@pytest.mark.parametrize(
    "other",
    [
        replace(REQUEST, criterion="refusal"),
        replace(REQUEST, category="harmful"),
        replace(REQUEST, query="fix a bik"),
        replace(REQUEST, responses=("no", "sure")),
        replace(REQUEST, responses=("sure",)),
        replace(REQUEST, responses=("sureno", "")),
        replace(REQUEST, query="fix a bikesure", responses=("", "no")),
    ],
)
def test_another_question_is_another_entry(other: JudgeRequest) -> None:
    assert digest_question("lm:a set@1", other) != digest_question("lm:a set@1", REQUEST)


def test_another_judge_or_an_edited_rubric_is_another_entry_and_another_seed_is_not() -> None:
    assert digest_question("lm:b set@1", REQUEST) != digest_question("lm:a set@1", REQUEST)
    assert digest_question("lm:a set@2", REQUEST) != digest_question("lm:a set@1", REQUEST)
    assert digest_question("lm:a set@1", replace(REQUEST, seed=9)) == digest_question("lm:a set@1", REQUEST)


TEXT = st.text(st.characters(), max_size=3)  # lone surrogates too: a model's output is not to be trusted


@given(a=st.tuples(TEXT, TEXT, TEXT), b=st.tuples(TEXT, TEXT, TEXT))
def test_no_two_ways_to_divide_a_text_are_the_same_question(a: tuple[str, ...], b: tuple[str, ...]) -> None:
    first, second = (digest_question("k", replace(REQUEST, query=t[0], responses=t[1:])) for t in (a, b))
    assert (first == second) == (a == b)


def test_a_failure_is_never_cached() -> None:
    cache = VerdictCache(10)
    cache.put(b"q", Verdict("fake", "fake@1", failure="cut off"))
    assert cache.get(b"q") is None
    assert (len(cache), cache.hits, cache.misses) == (0, 0, 1)


def test_the_least_recently_used_goes_first() -> None:
    cache = VerdictCache(2)
    cache.put(b"1", verdict(1))
    cache.put(b"2", verdict(2))
    assert cache.get(b"1") == verdict(1)
    cache.put(b"3", verdict(3))
    assert [cache.get(q) for q in (b"1", b"2", b"3")] == [verdict(1), None, verdict(3)]
    assert (cache.hits, cache.misses) == (3, 1)


def test_long_verdicts_are_bounded_by_their_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("judge.cache.RAW_CHARS_MAX", 100)
    cache = VerdictCache(1000)
    for k in range(20):
        cache.put(bytes([k % 15]), verdict(5, raw="x" * 30))
    assert len(cache) == 3
    cache.put(b"huge", verdict(5, raw="x" * 101))
    assert len(cache) == 0


def test_a_cache_of_0_entries_caches_nothing() -> None:
    cache = VerdictCache(0)
    cache.put(b"q", verdict(1))
    assert cache.get(b"q") is None
