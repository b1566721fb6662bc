#!/usr/bin/env bash
# Makes .venv (CPU) from the pinned files beside this one. Idempotent: a stamp holds their checksum. A half-made environment is
# never left under the name .venv.
set -euo pipefail
cd "$(dirname "$0")/.."
python=${PYTHON:-python3}
stamp=.venv/advgame-$(cat requirements/lock.txt requirements/cpu.txt | cksum | cut -d' ' -f1)
[ -e "$stamp" ] && exit 0

"$python" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 13))' || {
    echo "setup: $("$python" --version) is not 3.11 or 3.12; run PYTHON=python3.11 make setup" >&2; exit 2; }

echo "setup: making .venv (about 4 GB, some minutes)"
trap 'rm -rf .venv' ERR INT TERM
rm -rf .venv
"$python" -m venv .venv
pip() { .venv/bin/python -m pip --disable-pip-version-check "$@"; }
grep -v '^#' requirements/cpu.txt | while read -r pin; do
    case $pin in
    torch==*) pip install -qq --no-deps "$pin" 2>/dev/null ||
        pip install -qq --no-deps --index-url https://download.pytorch.org/whl/cpu "$pin" ;;
    *) pip install -qq --no-deps "$pin" ;;
    esac
done
pip install -qq --no-deps -r requirements/lock.txt
touch "$stamp"
echo "setup: .venv is ready"
