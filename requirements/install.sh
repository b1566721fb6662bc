#!/usr/bin/env bash
# Makes .venv (CPU) from the pinned files beside this one. Idempotent: a stamp holds their checksum. A half-made environment is
# never left under the name .venv.
set -Eeuo pipefail # E: the trap below holds in functions, too
cd "$(dirname "$0")/.."
python=${PYTHON:-python3}
stamp=.venv/advgame-$(cat requirements/lock.txt requirements/cpu.txt | cksum | cut -d' ' -f1)
[ -e "$stamp" ] && exit 0

"$python" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 13))' || {
    echo "setup: $("$python" --version) is not 3.11 or 3.12; run PYTHON=python3.11 make setup" >&2; exit 2; }

mapfile -t builds < <(grep -v '^#' requirements/cpu.txt)
mapfile -t pins < <(grep -v '^#' requirements/lock.txt)
group=60 # pins that pip is given at once: enough to keep it busy, few enough that somebody who waits sees it move
groups=$((${#builds[@]} + (${#pins[@]} + group - 1) / group)) n=0

echo "setup: making .venv (about 4 GB; usually 2 to 5 minutes)"
trap 'rm -rf .venv' ERR INT TERM
rm -rf .venv
"$python" -m venv .venv
pip() { .venv/bin/python -m pip --disable-pip-version-check "$@"; }
say() { n=$((n + 1)); echo "setup: $n of $groups, after $SECONDS s: $1"; }
for pin in "${builds[@]}"; do
    say "$pin"
    case $pin in
    torch==*) pip install -qq --no-deps "$pin" 2>/dev/null ||
        pip install -qq --no-deps --index-url https://download.pytorch.org/whl/cpu "$pin" ;;
    *) pip install -qq --no-deps "$pin" ;;
    esac
done
for ((first = 0; first < ${#pins[@]}; first += group)); do
    some=("${pins[@]:first:group}")
    say "${#some[@]} packages, ${some[0]%%==*} to ${some[-1]%%==*}"
    pip install -qq --no-deps "${some[@]}"
done
touch "$stamp"
echo "setup: .venv is ready after $SECONDS s"
