"""Metrics of those who answer and play: publisher, generation, judge and rollout workers. See `protocol.metrics`."""

from protocol.metrics.metric import counter, gauge, histogram

PUSH_PHASES = ("send", "pause", "load", "resume", "verify")
GAME_S = (0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0)
CALL_S = (0.001, 0.005, 0.025, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0)
PUSH_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0)
TOKENS = (4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1024.0, 2048.0, 4096.0, 8192.0)

# -- the publisher ----------------------------------------

VERSION = gauge("advgame_version", "1", "Newest policy version published.", "publisher", ("player",))
WORKER_VERSION = gauge(
    "advgame_worker_version",
    "1",
    "Policy version that a generation worker serves; -1 while it starts.",
    "publisher",
    ("player", "worker"),
)
PUSHES = counter(
    "advgame_pushes_total",
    "1",
    "Pushes to single workers: loaded, or why they failed.",
    "publisher",
    ("player", "outcome"),
    sound=(("outcome", ("loaded",)),),
)
PUSH_SECONDS = histogram(
    "advgame_push_seconds",
    "seconds",
    "Seconds of a push to a worker, by phase; `whole` is from sending to its answer.",
    "publisher",
    PUSH_S,
    ("player", "phase"),
    values=(("phase", (*PUSH_PHASES, "whole")),),
)
PAUSE_SECONDS = histogram(
    "advgame_generation_pause_seconds",
    "seconds",
    "Seconds that a worker's generation stood still for a push.",
    "publisher",
    PUSH_S,
    ("player",),
)
PUSH_BYTES = counter(
    "advgame_push_bytes_total", "bytes", "Bytes of weights that workers loaded.", "publisher", ("player",)
)
SUPERSEDED = counter(
    "advgame_versions_superseded_total",
    "1",
    "Published versions that no worker was ever sent, because a newer one came first.",
    "publisher",
    ("player",),
    only="a version was superseded",
)
EVICTIONS = counter(
    "advgame_worker_evictions_total",
    "1",
    "Generation workers that the publisher started anew, by why.",
    "publisher",
    ("player", "reason"),
    only="a worker was evicted",
)
DIGEST_MISMATCHES = counter(
    "advgame_digest_mismatches_total",
    "1",
    "Pushes whose bytes, or whose loaded parameters, were not what was sent.",
    "publisher",
    ("player",),
    only="a digest did not fit",
)

# -- generation workers ----------------------------------------

REQUESTS = counter(
    "advgame_requests_total",
    "1",
    "Asks that a generation worker took, by how they ended.",
    "generation",
    ("player", "outcome"),
    values=(("outcome", ("answered", "late", "too_long", "broken", "given_up")),),
    sound=(("outcome", ("answered",)),),
)
GENERATED_TOKENS = counter("advgame_generated_tokens_total", "1", "Tokens of answered asks.", "generation", ("player",))
SURPRISAL = counter(
    "advgame_sampled_surprisal_nats_total",
    "nats",
    "Sum of -log p of the sampled tokens, p before temperature and top-p. Over the tokens it estimates the policy's entropy a "
    "token where sampling.temperature and sampling.top_p are 1; below 1 it is smaller than that.",
    "generation",
    ("player",),
)
COMPLETION_TOKENS = histogram(
    "advgame_completion_tokens", "1", "Tokens of a completion.", "generation", TOKENS, ("player",)
)
ENGINE_RUNNING = gauge("advgame_engine_running", "1", "Samples that the engine is at.", "generation", ("player",))
ENGINE_WAITING = gauge(
    "advgame_engine_waiting", "1", "Requests that wait for a place or for KV cache.", "generation", ("player",)
)
KV_USAGE = gauge(
    "advgame_engine_kv_usage_ratio",
    "ratio",
    "Share of the KV cache's blocks that requests hold.",
    "generation",
    ("player",),
)
PREEMPTIONS = counter(
    "advgame_engine_preemptions_total",
    "1",
    "Requests that lost their KV cache to others.",
    "generation",
    ("player",),
    only="an engine preempted a request",
)
ENGINE_BUSY = counter(
    "advgame_engine_busy_seconds_total",
    "seconds",
    "Seconds in which the engine had at least one sample to work at.",
    "generation",
    ("player",),
)
ENGINE_START = gauge(
    "advgame_engine_start_seconds",
    "seconds",
    "Seconds that the engine's last start took, its first version included.",
    "generation",
    ("player",),
)

# -- judge workers ----------------------------------------

JUDGE_SECONDS = histogram(
    "advgame_judge_call_seconds", "seconds", "Seconds that a batch of questions took.", "judge", CALL_S
)
JUDGE_BUSY = counter(
    "advgame_judge_busy_seconds_total",
    "seconds",
    "Seconds in which the judge had at least one question in hand.",
    "judge",
)
JUDGE_VERDICTS = counter("advgame_judge_verdicts_total", "1", "Verdicts that the worker gave.", "judge")
JUDGE_UNREAD = counter(
    "advgame_judge_unread_total",
    "1",
    "Texts of a judge model that held no verdict that can be read, by why.",
    "judge",
    ("reason",),
    only="a judge model wrote one",
)
JUDGE_TOKENS = counter(
    "advgame_judge_tokens_total",
    "1",
    "Tokens that a judge model read and wrote.",
    "judge",
    ("direction",),
    values=(("direction", ("read", "written")),),
    only="judge.kind is lm or api",
)
JUDGE_COST = counter(
    "advgame_judge_cost_total",
    "1",
    "What the API judge has cost, in the currency of its prices.",
    "judge",
    only="judge.kind is api and has prices",
)

# -- rollout workers ----------------------------------------

GAME_SECONDS = histogram("advgame_game_seconds", "seconds", "Seconds that a finished game took.", "rollout", GAME_S)
GAMES_PLAYING = gauge("advgame_games_playing", "1", "Games that the rollout worker plays now.", "rollout")
ASKS = counter(
    "advgame_asks_total",
    "1",
    "Asks of the router by whom they ask: taken, and those moved, hedged, expired or condemned.",
    "rollout",
    ("pool", "outcome"),
    values=(("outcome", ("taken", "moved", "hedged", "expired", "condemned")),),
    sound=(("outcome", ("taken",)),),
)
CACHE_HITS = counter(
    "advgame_judge_cache_hits_total",
    "1",
    "Verdicts that were remembered, or on their way already, and asked of no judge.",
    "rollout",
)
