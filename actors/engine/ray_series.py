"""vLLM's own metrics at Ray's endpoint (`ray_vllm_*`), which Ray's board for engines reads (`rayDataLlmDashboard`).

vLLM tells its loggers about every step; a call to Ray for each number of each step would cost a busy engine a sixth of a core. So
the steps of a second are added up and told together. Of times between tokens, of which there is one for every token, at most
`SAMPLED` a second are told, evenly chosen: their quantiles are right, their number is not.
"""

import time
from typing import Any

PERIOD_S = 1.0
SAMPLED = 200


def make_stat_logger() -> type:
    """The logger's class, for `stat_loggers`. Imports vLLM."""
    from vllm.v1.metrics.ray_wrappers import RayPrometheusStatLogger

    class GatheredStatLogger(RayPrometheusStatLogger):
        """See the module's docstring."""

        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            self._gathered: dict[int, tuple[Any, Any]] = {}
            self._told_s = time.monotonic()

        def record(
            self, scheduler_stats: Any, iteration_stats: Any, mm_cache_stats: Any = None, engine_idx: int = 0
        ) -> None:
            scheduler, iteration = self._gathered.get(engine_idx, (None, None))
            self._gathered[engine_idx] = (
                merge_scheduler(scheduler, scheduler_stats),
                merge_iteration(iteration, iteration_stats),
            )
            now = time.monotonic()
            if now - self._told_s >= PERIOD_S or scheduler_stats is None or not scheduler_stats.num_running_reqs:
                self._told_s = now
                gathered, self._gathered = self._gathered, {}
                for index, (last, summed) in gathered.items():
                    if summed is not None:
                        summed.inter_token_latencies_iter = thin(summed.inter_token_latencies_iter)
                    super().record(last, summed, mm_cache_stats, index)

    return GatheredStatLogger


def merge_scheduler(before: Any, stats: Any) -> Any:
    """The newer `SchedulerStats`, with the caches' counts, which are of one step each, of both."""
    if before is None or stats is None:
        return before if stats is None else stats
    for cache in ("prefix_cache_stats", "connector_prefix_cache_stats"):
        one, other = getattr(before, cache, None), getattr(stats, cache, None)
        if one is not None:
            setattr(stats, cache, one if other is None else _add(one, other))
    return stats


def merge_iteration(before: Any, stats: Any) -> Any:
    """Two steps' `IterationStats` as one: counts added, lists joined."""
    if before is None or stats is None:
        return before if stats is None else stats
    return _add(before, stats)


def thin(values: list[float]) -> list[float]:
    """At most `SAMPLED` of them, evenly chosen."""
    return values[:: -(-len(values) // SAMPLED)] if values else values


def _add(one: Any, other: Any) -> Any:
    """Adds `other` to `one`, attribute by attribute. What is neither a count, a list nor made of such is the newer one's."""
    for name, value in vars(other).items():
        mine = getattr(one, name)
        if isinstance(value, list):
            mine.extend(value)
        elif isinstance(value, bool) or name == "iteration_timestamp":
            setattr(one, name, value)
        elif isinstance(value, int):
            setattr(one, name, mine + value)
        elif hasattr(value, "__dict__"):
            setattr(one, name, _add(mine, value))
        else:
            setattr(one, name, value)
    return one
