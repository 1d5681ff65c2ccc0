#!/usr/bin/env bash
# Try the wheel in _build/wheel in an environment of its own, outside of the repository: alone, from
# the first cell of a notebook that installs it, and as a student installs it.
# usage: wheel.sh PYTHON PYTHON_OF_THE_BOOK
set -euo pipefail
outside=$(mktemp -d)
trap 'rm -rf "$outside"' EXIT
wheel=$(echo "$PWD"/_build/wheel/*.whl)
export PIP_CONSTRAINT="$PWD/constraints.txt" PIP_QUIET=1
REPOSITORY="" "$2" book/_tools/launch.py "$outside/notebooks" "$wheel"
"$1" -m venv "$outside/venv"
cp tests/smoke.py tests/smoke_lab.py "$outside"
cd "$outside"
python=venv/bin/python
$python -m pip install "$wheel"
$python smoke.py
$python -m pip uninstall --yes qkutils
$python -m pip install ipykernel nbclient
$python smoke_lab.py notebook notebooks/03_cosine_trends.ipynb
$python -m pip install "$wheel[lab]"
$python smoke_lab.py command
