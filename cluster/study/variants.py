"""The variants that are compared, one recipe each, and the paper's claims about them (GAME.md 6).

A variant's file holds its settings; nothing here repeats them. Names are those of the files in `deploy/recipes/study`.
"""

from dataclasses import dataclass

BASELINE = "simultaneous"


@dataclass(frozen=True, slots=True)
class Variant:
    """One way to play and learn.

    `differs` says in words what the recipe's keys change; `paper` is the paper's attack success in per cent on HarmBench and
    WildJailbreak with Qwen2.5-7B-Instruct, None where GAME.md has none.
    """

    name: str
    label: str
    differs: str
    paper: tuple[float, float] | None = None


VARIANTS: tuple[Variant, ...] = (
    Variant(
        BASELINE,
        "simultaneous",
        "the default game: both players learn at once, pairwise judge, DPO, the EMA as reference and sampler",
        (4.7, 8.5),
    ),
    Variant("alternating", "alternating", "the players take turns: one learns while the other one waits"),
    Variant("frozen-attacker", "frozen attacker", "only the Defender learns", (5.1, 16.6)),
    Variant(
        "on-policy",
        "on-policy (frozen reference)",
        "the policy itself samples, and the reference is the starting model; there is no EMA",
        (19.9, 49.5),
    ),
    Variant("pointwise", "pointwise judge", "the judge scores one response at a time", (14.1, 30.8)),
    Variant(
        "grpo",
        "GRPO",
        "GRPO instead of DPO, with the policy as sampler and the starting model as reference",
    ),
)
BY_NAME = {v.name: v for v in VARIANTS}


@dataclass(frozen=True, slots=True)
class Claim:
    """In the paper `better` ends with a lower attack success than `worse`."""

    better: str
    worse: str


# GAME.md 6 orders four variants, in the same way on both benchmarks; GAME.md 5 argues against alternating.
_ORDER = (BASELINE, "frozen-attacker", "pointwise", "on-policy")
CLAIMS: tuple[Claim, ...] = (
    *(Claim(a, b) for k, a in enumerate(_ORDER) for b in _ORDER[k + 1 :]),
    Claim(BASELINE, "alternating"),
)
