"""Facts of a moment in words, which the line and the picture share. Pure."""

from cluster.measure.points import HeldoutPoint
from cluster.observe.view import PlayerView, RunView
from cluster.observe.words import number, percent
from cluster.publish.stats import WarmStart


def describe_warm(warm: WarmStart) -> str:
    """How far a warm start is."""
    if not warm.done:
        return "warm start not begun"
    return f"warm {warm.done}/{warm.wanted}, nll {number(warm.first_nll)} -> {number(warm.nll)}"


def describe_step(v: PlayerView, steps: int) -> str:
    """Steps done, or before the first one those of the warm start."""
    if not v.learns:
        return "frozen"
    return describe_warm(v.warm) if v.warm.done and not v.step else f"{v.step}/{steps}"


def describe_staleness(v: PlayerView) -> str:
    """Of the rows that a player's steps got, in policy versions."""
    return "-" if v.staleness is None else f"mean {v.staleness:.1f}, max {v.max_staleness}"


def describe_rows(v: PlayerView) -> str:
    """What became of a player's rows. Those of a step that no checkpoint contains yet count as learned."""
    return f"{v.rows.learned + v.rows.leased} of {v.rows.appended} learned"


def describe_evicted(v: PlayerView) -> str:
    """Rows that were dropped, by reason, the most frequent first."""
    reasons = sorted(v.rows.evicted.items(), key=lambda item: -item[1])
    return ", ".join(f"{n} {reason}" for reason, n in reasons) or "none"


def describe_playing(view: RunView) -> str:
    """Games being played, and how many may be, as far as the engines limit them."""
    limit = "" if view.limit is None else f" of {view.limit}"
    return f"{view.in_flight}{limit} playing"


def describe_attacks(view: RunView) -> str:
    """How the attacks of all games so far ended: in time and format, and of those true to their seed."""
    return f"attacks {percent(view.valid_attacks)} valid, {percent(view.faithful_attacks)} of them faithful"


def describe_judge(view: RunView) -> str:
    """What the judge did in finished games, and how much of its time it works."""
    failed = percent(view.failed / view.verdicts if view.verdicts else None)
    told = f"{view.verdicts} verdicts, {failed} failed, {percent(view.flip_rate)} flips"
    return told if view.judge_busy is None else f"{told}, busy {percent(view.judge_busy)}"


def heldout_curve(view: RunView) -> list[HeldoutPoint]:
    """The measurements that compare: the trained attacker's attacks are others, and no later point of this curve."""
    return [point for point in view.heldout if point.occasion != "end_trained_attacker"]


def describe_version(point: HeldoutPoint) -> str:
    """The Defender that a point was measured of; with a + where some responses came from a later one."""
    return f"v{point.versions['defender']}{'+' if point.mixed else ''}"
