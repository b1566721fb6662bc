"""What a random schedule (`tests.unit.cluster.replay.schedules`) is made of: a recipe, and how the parts of its run behave."""

from dataclasses import dataclass, field

from protocol.recipe import Order, Recipe, parse_recipe
from protocol.roles import PLAYERS, Player


@dataclass(frozen=True)
class Setting:
    """A run's settings as far as these parts see them, and how its parts behave."""

    staleness: int = 0
    attacker: int = 1  # games of a batch
    defender: int = 1
    attacks: int = 1
    learns: tuple[Player, ...] = PLAYERS
    alternate: int | None = None  # turns of so many pushes
    steps: int = 6
    push_every: int = 1
    spread: bool = False
    replicas: int = 1  # of each player
    sampler: Order = "fifo"
    remover: Order = "fifo"
    balanced: bool = True
    spare_rows: int | None = None  # of the capacity, beyond what a batch needs; None: it never bites
    in_flight: int = 8
    places: int = 8  # max_num_seqs
    backpressure: bool = True
    bears: int = 4  # open games above which engines preempt
    reports: bool = True  # whether the driver goes on reporting the load
    rollouts: int = 2
    one_category: bool = False
    faults: float = 0.1  # share of moves that are faults
    slow: str = ""  # who acts in one of ten fair rounds only

    def recipe(self) -> Recipe:
        """Schedules move rows, whatever is in them: with one attack and one response, too, which no player could learn from."""
        recipe = parse_recipe(
            {
                "run": {"steps": self.steps},
                "game": {"in_flight": self.in_flight},
                "generation": {
                    "workers": self.replicas,
                    "max_num_seqs": self.places,
                    "backpressure": {"increase": 2} if self.backpressure else None,
                },
                "replay": {
                    "max_staleness": self.staleness,
                    "sampler": self.sampler,
                    "remover": self.remover,
                    "balanced": self.balanced,
                },
                "push": {"every": self.push_every, "to": "spread" if self.spread else "all"},
                "learners": {
                    "attacker": {"train": "attacker" in self.learns, "batch_games": self.attacker},
                    "defender": {"train": "defender" in self.learns, "batch_games": self.defender},
                    "alternate_every": None if self.alternate is None else self.alternate * self.push_every,
                },
            }
        )
        spare = 10**6 if self.spare_rows is None else self.spare_rows
        rows = max(self.attacker, self.defender * self.attacks) + spare
        changes = {
            "game": recipe.game.model_copy(update={"attacks": self.attacks, "responses": 1}),
            "replay": recipe.replay.model_copy(update={"capacity_rows": rows}),
        }
        return recipe.model_copy(update=changes)


@dataclass
class Playing:
    """A game that a rollout worker plays: the versions that its tokens were sampled under so far."""

    attacked: int | None = None
    answered: int | None = None


@dataclass
class Learner:
    """One learner group. `does` is asking | executing | settling | done."""

    does: str = "asking"
    step: int = 0
    version: int = 0
    saved: tuple[int, int] = (0, 0)  # step and version of the last checkpoint
    got: dict[int, list[str]] = field(default_factory=dict)  # rows of each step that no checkpoint contains
