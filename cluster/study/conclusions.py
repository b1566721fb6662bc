"""Conclusions in sentences: which differences the seeds show, and where they contradict the paper. Pure.

A sentence says "lower" or "higher" only where the interval of the paired difference excludes 0; otherwise it says that these
seeds do not decide it. Nothing is corrected for the number of comparisons, and the text says how many there are.
"""

from collections.abc import Sequence

from cluster.measure.intervals import Interval
from cluster.study.compare import CheckedClaim, Difference, Place, check_claims, difference, pareto_front, places
from cluster.study.figures import (
    BASE_SUCCESS,
    COMPLIANCE,
    DEFLECTION,
    OVER_REFUSAL,
    POOLED_COMPLIANCE,
    POOLED_SUCCESS,
    Study,
)
from cluster.study.pooled import pooled_difference
from cluster.study.variants import BASELINE, BY_NAME, CLAIMS

# Measured with the held-out attacks of the base attacker: the same for all variants.
COMPARED = (BASE_SUCCESS, COMPLIANCE, OVER_REFUSAL, DEFLECTION)


def points(interval: Interval) -> str:
    """A difference of fractions in percentage points, with its interval."""
    if interval.high == float("inf"):
        return f"{100 * interval.value:+.1f} points (one seed: no interval)"
    return f"{100 * interval.value:+.1f} points [{100 * interval.low:+.1f}, {100 * interval.high:+.1f}]"


def differences(study: Study) -> list[Difference]:
    """Each other variant against the default game: `COMPARED`, then what the pooled trained attackers do."""
    found = []
    for variant in (v.name for v in study.variants if v.name != BASELINE):
        found += [difference(study, metric, variant, BASELINE) for metric in COMPARED]
        found += [pooled_difference(study, metric, variant, BASELINE) for metric in (POOLED_SUCCESS, POOLED_COMPLIANCE)]
    return [d for d in found if d is not None]


def describe_differences(found: Sequence[Difference]) -> list[str]:
    """One sentence a variant: which measures differ from the default game's, and which do not."""
    sentences = []
    for variant in dict.fromkeys(d.of for d in found):
        mine = [d for d in found if d.of == variant]
        differs = [f"{d.metric.title} is {d.direction} ({points(d.interval)})" for d in mine if d.direction != "open"]
        same = [f"{d.metric.title} ({points(d.interval)})" for d in mine if d.direction == "open"]
        text = f"**{BY_NAME[variant].label}** against {BASELINE}: "
        text += "; ".join(differs) + "." if differs else "no difference is significant."
        if same and differs:
            text += f" Not significant: {', '.join(same)}."
        elif same:
            text += f" The differences are {', '.join(same)}."
        sentences.append(text)
    return sentences


def compare_with_paper(checked: Sequence[CheckedClaim]) -> list[str]:
    """One sentence a claim, then the count."""
    verbs = {
        "agrees": "agrees with the paper",
        "contradicts": "**contradicts the paper**",
        "open": "not decided: the interval includes 0",
    }
    lines = []
    for c in checked:
        better, worse = BY_NAME[c.claim.better], BY_NAME[c.claim.worse]
        paper = ""
        if better.paper and worse.paper:
            paper = f" ({better.paper[0]:g} < {worse.paper[0]:g} and {better.paper[1]:g} < {worse.paper[1]:g} there)"
        lines.append(
            f"{better.label} < {worse.label}{paper}: {worse.label} minus {better.label} is "
            f"{points(c.difference.interval)} here; {verbs[c.outcome]}."
        )
    return lines


def count_outcomes(checked: Sequence[CheckedClaim]) -> str:
    """The count of claims by outcome, in one sentence."""
    n = {outcome: sum(c.outcome == outcome for c in checked) for outcome in ("agrees", "contradicts", "open")}
    if not checked:
        return "No claim of the paper could be checked: too few runs."
    return (
        f"Of the {len(checked)} orderings that the paper reports or argues for, {n['agrees']} came out here, "
        f"{n['contradicts']} came out the other way round, and {n['open']} are not decided at this number of seeds."
    )


def front_sentence(found: Sequence[Place]) -> str:
    """Who is on the Pareto front of the means, and who is not."""
    front = [p.variant for p in pareto_front(found)]
    behind = [p.variant for p in found if p.variant not in front]
    text = f"On the Pareto front of the means (attack success against benign compliance): {_names(front)}."
    return f"{text} Behind it: {_names(behind)}." if behind else text


def _names(variants: Sequence[str]) -> str:
    return ", ".join(BY_NAME[v].label for v in variants)


def conclusions(study: Study) -> list[str]:
    """The section's lines, Markdown."""
    found = differences(study)
    checked = check_claims(CLAIMS, lambda worse, better: difference(study, BASE_SUCCESS, worse, better))
    trained = check_claims(CLAIMS, lambda worse, better: pooled_difference(study, POOLED_SUCCESS, worse, better))
    ranked = sorted(places(study, [v.name for v in study.variants], BASE_SUCCESS), key=lambda p: p.attack_success)
    if not ranked:
        return ["No run finished, so there is nothing to conclude."]
    order = ", ".join(f"{BY_NAME[p.variant].label} {100 * p.attack_success:.1f} %" for p in ranked)
    lines = [
        f"Attack success of the base attacker after training, by mean: {order}.",
        "",
        front_sentence(ranked),
        "",
        f"Against the default game, paired by seed. {len(found)} comparisons, each at 95 %: about one in twenty would look like "
        "a difference where there is none.",
        "",
        *(f"- {sentence}" for sentence in describe_differences(found)),
        "",
        f"Against the paper, by the base attacker's attacks: {count_outcomes(checked)}",
        "",
        *(f"- {line}" for line in compare_with_paper(checked)),
    ]
    if trained:
        lines += ["", f"By the attacks of the pooled trained attackers: {count_outcomes(trained)}", ""]
        lines += [f"- {line}" for line in compare_with_paper(trained)]
    return lines
