"""What the end-to-end test of live series asks for is what the catalogue is sure of."""

import pytest

from tests.selectors import is_sure, metric_of, selectors_of


def test_selectors_are_found_in_an_expression() -> None:
    expr = 'sum by (player) (rate(ray_advgame_rows_total{run="a}b",outcome!="tie"}[5m])) / on () ray_advgame_step or vector(0)'
    assert list(selectors_of(expr)) == ['ray_advgame_rows_total{run="a}b",outcome!="tie"}', "ray_advgame_step"]


def test_a_name_that_is_in_no_catalogue_is_an_error() -> None:
    with pytest.raises(KeyError):
        metric_of("ray_advgame_rows")


@pytest.mark.parametrize(
    ("selector", "sure"),
    [
        ("ray_advgame_step", True),
        ("ray_advgame_staleness_versions_bucket", True),
        ('ray_advgame_pushes_total{outcome="loaded"}', True),
        ('ray_advgame_pushes_total{outcome!="loaded"}', False),  # a run without a fault has none that failed
        ('ray_advgame_waiting_seconds_total{cause="turn"}', False),
        ('ray_advgame_waiting_seconds_total{side=~"attacker|defender"}', True),
        ('ray_advgame_phase{role=~"driver-.+",phase="playing"}', True),
        ("ray_advgame_engine_preemptions_total", False),
        ("ray_advgame_model_flops_utilization_ratio", False),
    ],
)
def test_what_a_run_is_sure_to_have(selector: str, sure: bool) -> None:
    assert is_sure(selector) is sure
