"""Every trained Defender against the attacks of every variant's trained Attacker of the same seed.

"Own trained attacker" compares Defenders against different opponents; here all Defenders of a seed meet the same ones. The
models are the runs' exports, attacks and measurements come from `cluster.measure.heldout`, the judge is the sandbox's rule judge.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from cluster.measure.heldout import AttackSet, measure, wrap
from cluster.plan.heldout import plan_heldout
from cluster.sandbox.rule_judge import RuleJudge
from cluster.study.figures import BASE, Faced
from cluster.study.local import LocalPlayer
from cluster.study.runner import PlannedRun
from protocol.recipe import Recipe
from protocol.types import Seed


async def play_all_pairs(
    attackers: Mapping[str, Path], defenders: Mapping[str, Path], seeds: Sequence[Seed], recipe: Recipe
) -> list[Faced]:
    """Measures all pairs of one seed.

    Args:
        attackers, defenders: Hugging Face folders by name.
        seeds: the held-out ones.
        recipe: of any of the runs: they play, sample and measure alike.
    """
    judge, plan = RuleJudge(), plan_heldout(recipe)
    attacks: dict[str, AttackSet] = {}
    for name, folder in attackers.items():
        attacks[name] = await wrap(seeds, plan, LocalPlayer(folder), judge, f"cross-{name}")
    found = []
    for defender, folder in defenders.items():
        player = LocalPlayer(folder)
        measured = await asyncio.gather(
            *(measure(mine, plan, player, judge, f"cross-{name}") for name, mine in attacks.items())
        )
        found += [
            Faced(recipe.run.seed, name, defender, m.as_dict()) for name, m in zip(attacks, measured, strict=True)
        ]
    return found


def cross_play(finished: Sequence[PlannedRun], say: Callable[[str], None]) -> list[Faced]:
    """Measures all pairs, seed by seed, of the runs that finished."""
    from cluster.inputs.find import find_inputs

    if not finished:
        return []
    inputs = find_inputs(finished[0].recipe, say)  # the starting models and the held-out seeds are the same in all runs
    found: list[Faced] = []
    for seed in sorted({run.seed for run in finished}):
        mine = [run for run in finished if run.seed == seed]
        trained = {run.variant: run.path / "export" / "attacker" for run in mine if run.steps["attacker"]}
        attackers = {BASE: Path(inputs.models["attacker"]), **trained}
        defenders = {run.variant: run.path / "export" / "defender" for run in mine}
        found += asyncio.run(play_all_pairs(attackers, defenders, inputs.heldout, mine[0].recipe))
        say(f"seed {seed}: {len(defenders)} Defenders against {len(attackers)} Attackers")
    return found
