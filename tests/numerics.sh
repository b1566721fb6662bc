#!/bin/sh
# Runs the numerical tests under each setting that changes how floating-point numbers are added up, and the sandbox's models built
# anew under it. Stops at the first setting that fails, says which, and exits with its status. Arguments go to pytest.
set -u
cd "$(dirname "$0")/.." || exit 1
cache=$(mktemp -d) || exit 1
trap 'rm -rf "$cache"' EXIT

run() {
    name=$1
    shift 1
    settings=$1
    shift 1
    echo "== $name"
    # shellcheck disable=SC2086  # several settings
    env ADVGAME_CACHE="$cache/$name" ADVGAME_TEST_THREADS=1 OMP_NUM_THREADS=1 $settings \
        .venv/bin/python -m pytest tests/unit tests/integration -q -m numerics -p no:cacheprovider "$@" || {
        status=$?
        echo "test-numerics: failed under: $name ($settings)" >&2
        exit "$status"
    }
}

run native "ADVGAME_TEST_THREADS=1" "$@"
run two-threads "ADVGAME_TEST_THREADS=2 OMP_NUM_THREADS=2" "$@"
run aten-default "ATEN_CPU_CAPABILITY=default" "$@"
run aten-avx2 "ATEN_CPU_CAPABILITY=avx2" "$@"
run mkl-compatible "MKL_CBWR=COMPATIBLE" "$@"
run all-at-once "ATEN_CPU_CAPABILITY=default MKL_CBWR=COMPATIBLE ADVGAME_TEST_THREADS=2 OMP_NUM_THREADS=2" "$@"
