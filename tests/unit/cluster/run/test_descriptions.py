"""What Ray's dashboard says of a run."""

from cluster.run.descriptions import describe_job, describe_parts
from tests.unit.cluster.plan.plans import parse_plan


def test_every_part_that_has_a_bundle_says_what_it_serves() -> None:
    plan = parse_plan(
        {"generation": {"workers": 2}, "judge": {"kind": "rules", "workers": 2}, "rollout": {"workers": 2}}
    )
    said = describe_parts(plan)
    assert set(said) == {bundle.role for bundle in plan.placement.bundles}
    assert said["generation-defender-1"] == "defender, serves defender"
    assert said["judge-1"].startswith("judge, serves rules")
    assert said["rollout-0"] == "plays 32 games at once"


def test_of_a_frozen_player_no_rows_and_no_versions_are_told() -> None:
    said = describe_parts(parse_plan({"learners": {"attacker": {"train": False}}}))
    assert said["publisher-0"] == "new versions of defender" and said["replay-0"] == "games and rows for defender"


def test_the_jobs_metadata_are_texts_as_ray_takes_them() -> None:
    metadata = describe_job(parse_plan({"run": {"steps": 7}}))
    assert all(isinstance(value, str) for value in metadata.values())
    assert (metadata["job_name"], metadata["run"], metadata["steps"]) == ("advgame a", "a", "7")
