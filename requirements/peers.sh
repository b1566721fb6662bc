#!/usr/bin/env bash
# Makes .venv-peers: what `make bench` compares the replay buffer with. Reverb needs an old TensorFlow and so an environment of its own;
# TorchRL is a folder beside it, used with the packages of .venv. Idempotent; about 2 GB.
set -euo pipefail
cd "$(dirname "$0")/.."
python=${PYTHON:-python3}
stamp=.venv-peers/advgame-$(cat requirements/peers.txt requirements/peers-torchrl.txt | cksum | cut -d' ' -f1)
[ -e "$stamp" ] && exit 0

"$python" -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' || {
    echo "peers: $("$python" --version) is not 3.11, the newest that Reverb is built for; run PYTHON=python3.11 $0" >&2; exit 2; }

echo "peers: making .venv-peers (about 2 GB, some minutes)"
trap 'rm -rf .venv-peers' ERR INT TERM
rm -rf .venv-peers
"$python" -m venv .venv-peers
.venv-peers/bin/python -m pip --disable-pip-version-check install -qq --no-deps -r requirements/peers.txt
.venv/bin/python -m pip --disable-pip-version-check install -qq --no-deps --target .venv-peers/torchrl -r requirements/peers-torchrl.txt
touch "$stamp"
echo "peers: .venv-peers is ready"
