"""What an engine's occupancy keeps of vLLM's numbers."""

from types import SimpleNamespace

from actors.engine.occupancy import Occupancy, OccupancyStats


def test_the_newest_usage_and_queue_and_the_sum_of_preemptions_are_kept() -> None:
    occupancy = Occupancy()
    occupancy.record(SimpleNamespace(kv_cache_usage=0.9, num_waiting_reqs=7), SimpleNamespace(num_preempted_reqs=2))
    occupancy.record(None, SimpleNamespace(num_preempted_reqs=1))
    assert occupancy.read() == OccupancyStats(0.9, waiting=7, preemptions=3)
    occupancy.record(SimpleNamespace(kv_cache_usage=0.0, num_waiting_reqs=0), None)
    assert occupancy.read() == OccupancyStats(0.0, waiting=0, preemptions=3)
