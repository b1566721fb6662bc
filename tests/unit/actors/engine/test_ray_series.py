"""vLLM's numbers of several steps told as one: nothing is lost in between but the number of times between tokens."""

from vllm.v1.metrics.stats import IterationStats, PrefixCacheStats, SchedulerStats

from actors.engine.ray_series import SAMPLED, make_stat_logger, merge_iteration, merge_scheduler, thin


def step(tokens: int, first: list[float], prompt: int = 0) -> IterationStats:
    stats = IterationStats()
    stats.num_generation_tokens, stats.num_preempted_reqs = tokens, 1
    stats.time_to_first_tokens_iter = first
    stats.prompt_token_stats.total = prompt
    return stats


def test_steps_add_up() -> None:
    summed = merge_iteration(merge_iteration(None, step(3, [0.5], prompt=10)), step(4, [0.25], prompt=1))
    assert summed.num_generation_tokens == 7 and summed.num_preempted_reqs == 2
    assert summed.time_to_first_tokens_iter == [0.5, 0.25] and summed.prompt_token_stats.total == 11


def test_the_newest_queue_counts_and_the_caches_counts_add_up() -> None:
    before, after = SchedulerStats(num_waiting_reqs=5), SchedulerStats(num_waiting_reqs=2)
    before.prefix_cache_stats, after.prefix_cache_stats = PrefixCacheStats(), PrefixCacheStats()
    before.prefix_cache_stats.queries, after.prefix_cache_stats.queries = 10, 4
    merged = merge_scheduler(before, after)
    assert merged.num_waiting_reqs == 2 and merged.prefix_cache_stats.queries == 14
    assert merge_scheduler(before, None) is before and merge_iteration(None, None) is None


def test_times_between_tokens_are_thinned_evenly() -> None:
    values = [float(k) for k in range(10 * SAMPLED)]
    assert thin(values) == values[::10] and thin(values[:SAMPLED]) == values[:SAMPLED] and thin([]) == []


def test_the_logger_is_one_that_takes_the_place_of_vllms_own() -> None:
    from vllm.v1.metrics.loggers import PrometheusStatLogger

    assert issubclass(make_stat_logger(), PrometheusStatLogger), "vLLM adds its own beside any other kind"
