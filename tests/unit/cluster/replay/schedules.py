"""A run without machines: the real rule, dealer, tables, turns, backpressure and delivery, and around them workers, engines,
replicas and learners that do things late, at unequal speeds, twice, or never, as a random generator says.

`World` keeps books of its own (what was sampled under which version, how each game and each row ended) and checks the parts
against them after every move. Time is a number; nothing waits.
"""

import random
from collections.abc import Callable

from cluster.plan.plan import settle_every
from cluster.plan.replay import plan_replay
from cluster.publish.delivery import Delivery, Push
from cluster.replay.rules.admission import AdmissionRule, AdmissionState
from cluster.replay.rules.backpressure import Backpressure, EngineLoad
from cluster.replay.rules.dealer import Dealer
from cluster.replay.rules.leases import Row
from cluster.replay.rules.selectors import Selection
from cluster.replay.rules.table import Table
from cluster.replay.rules.turns import Roster, Turn
from protocol.roles import PLAYERS, Player
from protocol.types import Seed
from tests.unit.cluster.replay.schedule_settings import Learner, Playing, Setting

GAME_LIMIT_S = 8.0  # after which an open game is dealt again
PUSH_S, START_S = 3.0, 5.0
FAIR_ROUNDS = 3000  # four times what the slowest of 400 random schedules took
STILL_ROUNDS = 25  # longer than every deadline above: if nothing moved by then, nothing will


class World:
    """See the module's docstring."""

    def __init__(self, s: Setting, rng: random.Random) -> None:
        recipe = s.recipe()
        plan = plan_replay(recipe)
        self.s, self.rng, self.recipe = s, rng, recipe
        self.learns = recipe.trained
        self.rule = AdmissionRule(plan.admission)
        self.bound = {p: (s.staleness + 1 - recipe.oldest_replica) * getattr(s, p) for p in PLAYERS}
        self.roster = Roster.from_plan(plan)
        categories = ["harmful"] if s.one_category else ["harmful", "benign"]
        self.dealer = Dealer(0, [Seed(c, c, c) for c in categories])  # type: ignore[arg-type]
        self.tables: dict[Player, Table[None]] = {
            p: Table(s.staleness, recipe.replay.capacity_rows, Selection.from_plan(plan, p)) for p in PLAYERS
        }
        self.pressure = Backpressure.from_plan(plan)
        self.preempted = {f"{p}-{k}": 0 for p in PLAYERS for k in range(s.replicas)}  # as each replica's engine counts
        self.delivery = Delivery(PUSH_S, START_S)
        self.serves: dict[str, int] = {}  # by every replica that is up
        self.pushes: list[Push] = []  # on their way
        self.starts: dict[str, int] = {}  # replicas that are starting, and the ticket
        self.learners = {p: Learner() for p in PLAYERS}
        self.settles = settle_every(recipe)
        self.now, self.rounds = 0.0, 0
        self.lives = [0] * s.rollouts
        self.playing: dict[str, dict[int, Playing]] = {}
        self.mail: list[tuple[str, int, Playing]] = []  # games whose worker died with their record on its way
        self.ends: dict[int, list[str]] = {}
        self.sampled: dict[str, int] = {}  # the version of every row that arrived
        self.learned: set[str] = set()
        self.in_order: list[tuple[Player, int]] = []  # steps as they got their games
        self.games: dict[Player, set[int]] = {p: set() for p in PLAYERS}  # of those steps
        self.no_games: dict[Player, set[int]] = {p: set() for p in PLAYERS}  # the judge failed, and nothing is left
        for player in PLAYERS:
            for k, period in enumerate(recipe.push_periods):
                name = f"{player}-{k}"
                self.starts[name] = self.delivery.register(player, name, self.now, period)
        for name in list(self.starts):
            self.start(name)

    # -- games ---------------------------------------------------------------------------------------------------------

    @property
    def turn(self) -> Turn | None:
        return self.roster.turn(self.roster.standing(self.tables))

    def worker(self, k: int) -> str:
        return f"rollout-{k}@{self.lives[k]}"

    def deal(self, k: int, lose_reply: bool = False) -> bool:
        """The replay buffer's `deal`, for worker k."""
        worker = self.worker(k)
        mine = self.playing.setdefault(worker, {})
        want = self.s.in_flight - len(mine)
        if want <= 0:
            return False
        taken_back = self.dealer.take_back_earlier(worker) + self.dealer.take_back_overdue(self.now, GAME_LIMIT_S)
        standing = self.roster.standing(self.tables)
        turn = self.roster.turn(standing)
        state = AdmissionState(
            self.dealer.open_games,
            {p: t.unlearned for p, t in self.tables.items()},
            standing.finished,
            turn,
            self.roster.steps_left(standing),
        )
        admission, open_before = self.rule.admit(state), self.dealer.open_games
        if self.pressure is not None:
            limit = self.pressure.limit(self.now)
            admission = self.pressure.narrow(admission, open_before, self.now)
            assert limit is None or open_before + admission.games <= max(limit, open_before), (
                "more than the engines bear"
            )
        assert admission.why.startswith(f"admitting {admission.games}: ")
        games = min(want, admission.games)
        for deal in self.dealer.deal(worker, games, self.now):
            self.ends.setdefault(deal.game_id, [])
            if not lose_reply:
                mine.setdefault(deal.game_id, Playing())
        if games:
            for p, left in ({turn.player: turn.steps_left} if turn else state.steps_left).items():
                bound = min(self.bound[p], left * getattr(self.s, p))
                assert self.dealer.open_games + self.tables[p].unlearned <= bound, "more games than the bound"
        return games > 0 or bool(taken_back)

    def sample(self, player: Player) -> int | None:
        """The version that a replica which is up samples under; None if none is."""
        up = [v for name, v in self.serves.items() if name.startswith(player)]
        return self.rng.choice(up) if up else None

    def play_on(self, k: int, fair: bool) -> bool:
        """One game of worker k gets its attacks, its answers, or its end."""
        worker = self.worker(k)
        mine = self.playing.get(worker)
        if not mine:
            return False
        game_id = self.rng.choice(sorted(mine))
        game = mine[game_id]
        if game.attacked is None:
            game.attacked = self.sample("attacker")
            return game.attacked is not None
        if game.answered is None:
            game.answered = self.sample("defender")
            return game.answered is not None
        del mine[game_id]
        if not fair and self.rng.random() < 0.1:
            if self.dealer.abandon(worker, game_id, "generation_deadline"):
                self.ends[game_id].append("abandoned")
            return True
        self.finish(game_id, game, useful=fair)
        return True

    def finish(self, game_id: int, game: Playing, useful: bool) -> None:
        """The replay buffer's `finish`, whoever brings the record."""
        if self.dealer.is_final(game_id):
            self.dealer.late += 1
            return
        assert game.attacked is not None and game.answered is not None
        assert self.dealer.finish(game_id)
        self.ends[game_id].append("finished")
        standing, rng = self.roster.standing(self.tables), self.rng
        judge_failed = not useful and rng.random() < 0.2
        for p in PLAYERS:
            rows = 1 if p == "attacker" else self.s.attacks if useful else rng.randint(0, self.s.attacks)
            why = None if useful or rng.random() < 0.6 else rng.choice(["tie", "no_pair"])
            version = game.attacked if p == "attacker" else game.answered
            made = [Row(f"{game_id}/{p}/{j}", version, None, why) for j in range(rows)]
            assert not {row.row_id for row in made} & self.sampled.keys(), "a row arrived twice"
            self.sampled |= {row.row_id: row.version for row in made}
            category = self.dealer.seed_of(game_id).category
            refused = self.roster.refusal(p, standing)
            assert self.tables[p].append(game_id, made, category, refused, judge_failed)
            if judge_failed and (why or not rows):
                self.no_games[p].add(game_id)
        for p in PLAYERS:
            self.tables[p].trim()

    def kill_rollout(self, k: int) -> None:
        """The worker dies. Some of its records are on their way and arrive later, under its old name; it may be noticed, or not."""
        for game_id, game in self.playing.pop(self.worker(k), {}).items():
            if game.answered is not None:
                self.mail.append((self.worker(k), game_id, game))
        if self.rng.random() < 0.5:
            self.dealer.take_back_from(self.worker(k))
        self.lives[k] += 1

    def post(self) -> bool:
        if not self.mail:
            return False
        _, game_id, game = self.mail.pop(self.rng.randrange(len(self.mail)))
        self.finish(game_id, game, useful=True)
        return True

    # -- engines -------------------------------------------------------------------------------------------------------

    def report_load(self) -> bool:
        """The driver reports those engines that answer; those with too many games open preempt."""
        if self.pressure is None:
            return False
        before, open_games, loads = self.pressure.limit(self.now), self.dealer.open_games, []
        for name in self.preempted:
            self.preempted[name] += open_games > self.s.bears
            usage = min(1.0, open_games / (self.s.bears + 1) + self.rng.random() / 4)
            if self.rng.random() < 0.9:
                loads.append(EngineLoad(name, usage, max(0, open_games - self.s.bears) * 8, self.preempted[name]))
        self.pressure.report(loads, open_games, self.now)
        after = self.pressure.limit(self.now)
        return after != before

    def start(self, name: str) -> bool:
        """A starting replica is up, on the version that is for it."""
        version = self.delivery.choose(name)
        self.preempted[name] = 0  # a new engine counts anew
        assert self.delivery.record_start(name, self.starts.pop(name), version)
        self.serves[name] = version
        return True

    def send(self) -> bool:
        new = self.delivery.next_pushes(self.now)
        self.pushes += new
        return bool(new)

    def arrive(self, fails: bool = False) -> bool:
        """A push ends: loaded, refused or too late."""
        if not self.pushes:
            return False
        push = self.pushes.pop(self.rng.randrange(len(self.pushes)))
        if fails or self.now > push.deadline_s:
            self.restart(push.worker, push.ticket)
        elif self.delivery.record_load(push.worker, push.ticket, push.version):
            assert push.version > self.serves[push.worker]
            self.serves[push.worker] = push.version
        return True

    def restart(self, name: str, ticket: int) -> None:
        """A replica that failed or died starts anew."""
        new = self.delivery.evict(name, ticket, "failed", self.now)
        if new is not None:
            self.serves.pop(name, None)
            self.starts[name] = new

    # -- learners ------------------------------------------------------------------------------------------------------

    def learn(self, player: Player) -> bool:
        """The learner's next move, as in `learners.loop`."""
        table, it = self.tables[player], self.learners[player]
        if player not in self.learns or it.does == "done":
            return False
        if it.does == "settling":
            if it.version > 0 and not self.delivery.is_delivered(player, it.version):
                return False
            self.go_on(player)
            return True
        if it.does == "executing":
            it.step += 1
            if it.step % self.s.push_every == 0 or it.step == self.s.steps:
                self.publish(player)
            if self.settles and (it.step % self.settles == 0 or it.step == self.s.steps):
                it.does = "settling"
            else:
                self.go_on(player)
            return True
        before = (table.unlearned, self.turn)
        table.ask(it.step, it.version)
        turn = self.turn
        outcome = table.lease(it.step, it.version, getattr(self.s, player), turn is None or turn.player == player)
        if outcome.lease is None:
            return (table.unlearned, self.turn) != before  # asking alone says that the step before is executed
        rows = [row.row_id for row in outcome.lease.rows]
        assert all(it.version - self.sampled[row] <= self.s.staleness for row in rows), "a stale row is learned"
        assert len(outcome.lease.units) == getattr(self.s, player)
        games = {unit.game_id for unit in outcome.lease.units}
        assert not self.no_games[player] & games, "a game that the judge failed on fills a batch"
        if outcome.new:
            self.in_order.append((player, it.step))
            self.games[player] |= games
        it.got[it.step], it.does = rows, "executing"
        return True

    def publish(self, player: Player) -> None:
        it = self.learners[player]
        it.version += 1
        self.delivery.publish(player, it.version, last=it.step == self.s.steps)

    def go_on(self, player: Player) -> None:
        it = self.learners[player]
        it.does = "asking"
        if it.step == self.s.steps:
            self.save(player)
            self.tables[player].finish()
            it.does = "done"

    def save(self, player: Player) -> None:
        """A checkpoint of the steps executed: their rows are learned for good."""
        it = self.learners[player]
        self.tables[player].acknowledge(it.step)
        for step in [step for step in it.got if step < it.step]:
            rows = it.got.pop(step)
            assert not self.learned & set(rows), "a row is learned twice"
            self.learned |= set(rows)
        it.saved = (it.step, it.version)

    def crash(self, player: Player) -> None:
        """The learner group starts again from its last checkpoint, and pushes what it has there as a new version."""
        it, table = self.learners[player], self.tables[player]
        if player not in self.learns or it.does == "done":
            return
        (it.step, version), it.does, it.got = it.saved, "asking", {}
        table.rewind(it.step)
        it.version = max(version, table.version)
        if it.version > 0 or it.step > 0:
            self.publish(player)
            if self.settles:
                it.does = "settling"

    # -- schedules -----------------------------------------------------------------------------------------------------

    def fault(self) -> None:
        rng = self.rng
        k = rng.randrange(self.s.rollouts)
        replica = rng.choice(sorted(self.preempted))
        rng.choice(
            [
                lambda: self.kill_rollout(k),
                lambda: self.deal(k, lose_reply=True),
                lambda: self.crash("attacker"),
                lambda: self.crash("defender"),
                lambda: self.arrive(fails=True),
                lambda: self.preempted.update({replica: 0}),  # it rebuilt its engine and says nothing
            ]
        )()

    def moves(self, fair: bool) -> dict[str, Callable[[], bool]]:
        """What each part can do, by its name."""
        rng, parts = self.rng, {}
        for k in range(self.s.rollouts):
            parts[f"rollout-{k}"] = lambda k=k: self.deal(k) | self.play_on(k, fair)
        for player in PLAYERS:
            parts[player] = lambda player=player: self.learn(player)
            parts[f"save {player}"] = lambda player=player: bool(self.save(player))
        parts["publisher"] = lambda: self.send() | self.arrive()
        parts["replicas"] = lambda: bool(self.starts) and self.start(rng.choice(sorted(self.starts)))
        parts["post"] = self.post
        if self.s.reports or not fair:
            parts["driver"] = self.report_load
        return parts

    def check(self) -> None:
        d = self.dealer
        waiting = d.started - d.finished - d.abandoned.total() - d.open_games
        assert waiting == len(d._again) >= 0
        assert all(len(ends) <= 1 for ends in self.ends.values()), "a game ended twice"
        for t in self.tables.values():
            assert t.learned + t.evicted.total() + t.held == t.appended, "a row is lost"

    def play(self, moves: int) -> None:
        """So many random moves, faults among them, and then fair rounds until every learner took its last step."""
        for _ in range(moves):
            self.now += self.rng.expovariate(4.0)
            if self.rng.random() < self.s.faults:
                self.fault()
            else:
                self.rng.choice(list(self.moves(fair=False).values()))()
            self.check()
        still = 0
        for round_ in range(FAIR_ROUNDS):
            if all(self.learners[p].does == "done" for p in self.learns):
                break
            self.now += 1.0
            parts = self.moves(fair=True)
            if round_ % 10 and self.s.slow in parts:
                del parts[self.s.slow]
            self.rounds = round_
            moved = [move() for _, move in self.rng.sample(list(parts.items()), len(parts))]
            still = 0 if any(moved) else still + 1
            assert still < STILL_ROUNDS, "nobody can move: a deadlock"
        else:
            raise AssertionError(f"not done after {FAIR_ROUNDS} rounds: a livelock")
        self.end()

    def end(self) -> None:
        """The run stops; every game that was admitted and every row that arrived ended in exactly one way."""
        assert all(self.learners[p].step == self.s.steps for p in self.learns)
        for k in range(self.s.rollouts):
            for game_id in self.playing.pop(self.worker(k), {}):
                if self.dealer.abandon(self.worker(k), game_id, "stopped"):
                    self.ends[game_id].append("stopped")
        self.check()
        # What is left was lost with its worker or a reply, and would be dealt again if the run went on.
        self.dealer.take_back_overdue(self.now + 2 * GAME_LIMIT_S, GAME_LIMIT_S)
        left = [game_id for game_id, ends in self.ends.items() if not ends]
        assert sorted(self.dealer._again) == sorted(left) and self.dealer.open_games == 0
        assert sorted(self.ends) == list(range(self.dealer.started))
        for p, t in self.tables.items():
            mine = {row for row in self.sampled if row.split("/")[1] == p}
            assert t.appended == len(mine)
            assert t.learned == len(self.learned & mine)
            assert t.held == 0 or p not in self.learns
