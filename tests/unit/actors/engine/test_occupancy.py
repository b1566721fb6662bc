"""What an engine keeps of the numbers that vLLM reports with every step."""

from types import SimpleNamespace

from actors.engine.occupancy import OccupancyStats, StepCounter


def test_the_newest_usage_and_queue_and_the_sum_of_preemptions_are_kept() -> None:
    counter = StepCounter()
    occupancy = counter.occupancy
    counter.record(SimpleNamespace(kv_cache_usage=0.9, num_waiting_reqs=7), SimpleNamespace(num_preempted_reqs=2))
    counter.record(None, SimpleNamespace(num_preempted_reqs=1))
    assert occupancy.read() == OccupancyStats(0.9, waiting=7, preemptions=3)
    counter.record(SimpleNamespace(kv_cache_usage=0.0, num_waiting_reqs=0), None)
    assert occupancy.read() == OccupancyStats(0.0, waiting=0, preemptions=3)


def test_every_report_is_a_step_also_one_without_output() -> None:
    counter = StepCounter()
    for _ in range(3):
        counter.record(SimpleNamespace(kv_cache_usage=0.5, num_waiting_reqs=0), None)
    assert counter.steps == 3
