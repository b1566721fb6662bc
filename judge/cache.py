"""The cache of verdicts: a question that was answered is not paid for again.

A question is everything that a verdict depends on except the sampling seed: who judges by which rubrics (the pool's `key`), the
criterion, the category, the query, and the responses in their order. Another judge, an edited rubric or the other order of a
pair is another question.

Invariants: a failure is never cached; the least recently used entries are evicted first, beyond a number and beyond a size.
"""

from collections import OrderedDict

from judge.digests import hash_texts
from protocol.types import JudgeRequest, Verdict

RAW_CHARS_MAX = (
    2**28
)  # characters of the verdicts' texts together: a judge that reasons at length would fill the memory first


def digest_question(key: str, request: JudgeRequest) -> bytes:
    """A digest of the question.

    Args:
        key: the judge and its rubrics (names with versions and digests), as one text.
    """
    return hash_texts((key, request.criterion, request.category, request.query, *request.responses)).digest()


class VerdictCache:
    """Up to `entries` verdicts by question; 0 caches nothing. Counts its `hits` and `misses`."""

    def __init__(self, entries: int) -> None:
        self._entries = entries
        self._verdicts: OrderedDict[bytes, Verdict] = OrderedDict()
        self._chars = 0
        self.hits = self.misses = 0

    def __len__(self) -> int:
        return len(self._verdicts)

    def get(self, question: bytes) -> Verdict | None:
        """The verdict on a question (its digest), or None."""
        verdict = self._verdicts.get(question)
        if verdict is None:
            self.misses += 1
            return None
        self.hits += 1
        self._verdicts.move_to_end(question)
        return verdict

    def put(self, question: bytes, verdict: Verdict) -> None:
        """Caches a verdict, unless it is a failure."""
        if verdict.failure is not None:
            return
        old = self._verdicts.pop(question, None)
        self._verdicts[question] = verdict
        self._chars += len(verdict.raw) - (len(old.raw) if old else 0)
        while len(self._verdicts) > self._entries or self._chars > RAW_CHARS_MAX:
            _, evicted = self._verdicts.popitem(last=False)
            self._chars -= len(evicted.raw)
