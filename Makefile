# The commands that people use. Everything runs in .venv, which `setup` makes from pinned files.
.PHONY: setup demo demo-lm watch study bench bench-synchronous chaos test test-numerics test-slow test-gpu test-nodes test-unit lint types check test-schedules real-input clean
VENV := .venv/bin
ARGS ?=
export PYTHONUNBUFFERED := 1
export RAY_USAGE_STATS_ENABLED := 0

setup:
	@requirements/install.sh

## The whole game on this machine: sandbox models, local Ray, the real loop, a table of what was learned.
demo: setup
	@exec $(VENV)/python -m cluster train deploy/recipes/sandbox.yaml $(ARGS)

## The game with a real small model (SmolLM2-135M) as both players, on mild questions: at most an hour on two cores, after the model's
## folder is made in the cache, once: 93 MB to download.
SMOLLM2 := $(or $(ADVGAME_CACHE),$(HOME)/.cache/advgame)/smollm2
demo-lm: setup
	@test -d "$(SMOLLM2)" || $(VENV)/python -m cluster models smollm2 "$(SMOLLM2)"
	@exec $(VENV)/python -m cluster train deploy/recipes/smollm2.yaml --set models.attacker.path="$(SMOLLM2)" \
	    --set models.defender.path="$(SMOLLM2)" $(ARGS)

## The demo beside a real Prometheus with our alerts (Debian: apt-get install prometheus). ARGS=--stay keeps both after the run.
watch: setup
	@exec $(VENV)/python -m cluster watch deploy/recipes/sandbox.yaml $(ARGS)

## Six variants of the game, five seeds each, in the sandbox: about 90 minutes on two cores; goes on where it was. Writes docs/study.md.
study: setup
	@exec $(VENV)/python -m cluster.study $(ARGS)

## Unit tests; those that start Ray, vLLM and DeepSpeed, two modules at a time; whole runs and what measures time, one by one.
test: setup
	@$(VENV)/python -m pytest tests/unit -q -n auto -p no:cacheprovider
	@$(VENV)/python -m pytest tests/integration -q -n 2 --dist loadfile -m "not slow and not alone" -p no:cacheprovider
	@$(VENV)/python -m pytest tests/integration tests/e2e -q -m "alone and not slow" -p no:cacheprovider

## Numerical tests on other kernels, orders of summation and numbers of threads: about a quarter of an hour. Names what fails.
test-numerics: setup
	@tests/numerics.sh

## What CI has no time for: the judge model trained and used in a whole run, calibration on an engine. About twenty minutes.
test-slow: setup
	@$(VENV)/python -m pytest tests/integration tests/e2e -q -s -m slow -p no:cacheprovider

## Faults held for a minute each in whole runs: about ten minutes. ADVGAME_FAULT_S=20 shortens them.
chaos: setup
	@$(VENV)/python -m pytest tests/chaos -q -s -p no:cacheprovider

## Each figure against a limit or a peer of the same run; a table and bench.json. Exit status 1 where a target is missed.
## docs/benchmarks.md says what they are. One alone: make bench ARGS=overlap.
bench: setup
	@$(VENV)/python -m tests.benchmarks $(ARGS)

## The sandbox synchronous against a staleness bound of 4, three seeds each: six runs, resumable. Writes its table of docs/benchmarks.md.
bench-synchronous: setup
	@exec $(VENV)/python -m tests.benchmarks.synchronous $(ARGS)

## Admission, replay, pushes and backpressure through 10,000 random schedules: about five minutes.
test-schedules: setup
	@ADVGAME_SCHEDULES=10000 $(VENV)/python -m pytest tests/unit/cluster/replay/test_admission_schedules.py -q -p no:cacheprovider --timeout=3600

## What needs CUDA; says so and skips everything where there is none.
test-gpu: setup
	@$(VENV)/python -m pytest tests/gpu -q -s -rs -p no:cacheprovider

## Runs over two to four Ray nodes, each a network namespace of this machine: parts on different nodes, nodes lost and cut off, room
## waited for. Needs root and iproute2, says so and skips everything without them.
test-nodes: setup
	@$(VENV)/python -m pytest tests/nodes -q -s -rs -p no:cacheprovider

test-unit: setup
	@$(VENV)/python -m pytest tests/unit -q -n auto

lint: setup
	@$(VENV)/ruff format --check .
	@$(VENV)/ruff check .
	@$(VENV)/lint-imports

types: setup
	@$(VENV)/mypy

check: lint types

## Three steps on real seeds with a random model of 16 M parameters: nothing sensible comes out, everything is counted.
## SEEDS=a.jsonl: any file of {"prompt", "category"} lines. Its name reaches the shell by the environment, whatever is in it.
MODEL := $(or $(ADVGAME_CACHE),$(HOME)/.cache/advgame)/random-16m
real-input: export MODEL := $(MODEL)
real-input: setup
	@test -n "$$SEEDS" || { echo "real-input: no SEEDS; run make real-input SEEDS=file.jsonl" >&2; exit 2; }
	@test -d "$$MODEL" || $(VENV)/python -m cluster random-model "$$MODEL" --texts "$$SEEDS"
	@exec $(VENV)/python -m cluster train deploy/recipes/random-16m.yaml --set "seeds.train=$$SEEDS" \
	    --set "models.attacker.path=$$MODEL" --set "models.defender.path=$$MODEL" $(ARGS)

clean:
	rm -rf .mypy_cache .ruff_cache .pytest_cache .hypothesis
