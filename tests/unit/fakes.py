"""Fakes for unit tests: players that say what they are told and a judge that scores by a table. Never used end to end."""

from collections.abc import Callable, Sequence

from protocol.types import Ask, Completion, Finish, JudgeRequest, Verdict


def completion(text: str, finish: Finish = "stop", version: int = 0) -> Completion:
    n = len(text.split()) or 1
    return Completion.of((1, 2), range(n), (-0.5,) * n, text, finish, version)


class FakeGenerator:
    """Answers each ask with the next texts of a list, or with a function of the ask."""

    def __init__(self, answer: Callable[[Ask], Sequence[str | Completion]]) -> None:
        self.answer = answer
        self.asks: list[Ask] = []

    async def generate(self, ask: Ask) -> list[Completion]:
        self.asks.append(ask)
        said = self.answer(ask)
        return [c if isinstance(c, Completion) else completion(c) for c in said]


class FakeJudge:
    """Scores a text by a table; a text that is missing there cannot be read. Faithful unless it says "off"."""

    def __init__(self, table: dict[str, float], faithful_fails: bool = False) -> None:
        self.table, self.faithful_fails = table, faithful_fails
        self.requests: list[JudgeRequest] = []

    async def judge(self, requests: Sequence[JudgeRequest]) -> list[Verdict]:
        self.requests += requests
        return [self._one(r) for r in requests]

    def _one(self, r: JudgeRequest) -> Verdict:
        if r.criterion == "faithfulness":
            if self.faithful_fails:
                return Verdict("fake", "f@1", failure="unparseable")
            return Verdict("fake", "f@1", faithful="off" not in r.responses[0])
        if any(text not in self.table for text in r.responses):
            return Verdict("fake", f"{r.criterion}@1", failure="unparseable")
        return Verdict("fake", f"{r.criterion}@1", scores=tuple(self.table[text] for text in r.responses))
