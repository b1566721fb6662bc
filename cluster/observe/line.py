"""One moment of a run as one line of plain text, for logs and pipes: the facts of `picture`. Pure."""

from cluster.measure.points import HeldoutPoint
from cluster.observe.eta import describe_left
from cluster.observe.facts import (
    describe_attacks,
    describe_evicted,
    describe_judge,
    describe_playing,
    describe_rows,
    describe_staleness,
    describe_step,
    describe_version,
    heldout_curve,
)
from cluster.observe.view import PlayerView, RunView
from cluster.observe.words import number, percent
from protocol.roles import Player


def line(view: RunView) -> str:
    """The moment in one line."""
    learning = {p: v for p, v in view.players.items() if v.learns}
    parts = [
        ", ".join(_describe_player(p, v, view) for p, v in view.players.items()),
        _describe_heldout(view),
        f"games {view.finished} done {describe_playing(view)}, {view.abandoned} abandoned",
        describe_attacks(view),
        "ties " + ", ".join(f"{p} {percent(v.ties)}" for p, v in learning.items()),
        f"judge {describe_judge(view)}",
        *(
            f"{p} holds {v.held} games, rows {describe_rows(v)}, evicted {describe_evicted(v)}"
            for p, v in learning.items()
        ),
        f"staleness {number(view.staleness)} of {view.bound}",
        view.bottleneck,
        describe_left(view.eta_s),
        view.why if view.paused else "",
    ]
    return "; ".join(part for part in parts if part)


def _describe_player(player: Player, v: PlayerView, view: RunView) -> str:
    if not v.learns:
        return f"{player} frozen"
    turn = " (its turn)" if view.turn == player else ""
    return (
        f"{player}{turn} step {describe_step(v, view.steps)} v{v.version} reward {number(v.reward)} "
        f"staleness {describe_staleness(v)} loss {number(v.loss)}"
    )


def _describe_heldout(view: RunView) -> str:
    """The newest measurement, from where it started; empty before the first."""
    curve = heldout_curve(view)
    if not curve:
        return ""
    first, last = curve[0], curve[-1]
    shares = {
        "attack success": (first.attack_success, last.attack_success),
        "over-refusal": (first.over_refusal, last.over_refusal),
    }
    if first is last:
        told = [f"{name} {percent(now)}" for name, (_, now) in shares.items()]
        return f"held-out {describe_version(last)}: {', '.join(told)}"
    told = [f"{name} {percent(before)} -> {percent(now)}" for name, (before, now) in shares.items()]
    return f"held-out {describe_version(first)} -> {describe_version(last)}: {', '.join(told)}"


def say_heldout(point: HeldoutPoint) -> str:
    """A held-out score that was measured while the run learns, in one line of text."""
    others = " and others" if point.mixed else ""
    return (
        f"held-out at step {point.step}, Defender v{point.versions['defender']}{others}: "
        f"attack success {percent(point.attack_success)}, over-refusal {percent(point.over_refusal)} "
        f"(n {point.n_harmful + point.n_benign})"
    )
