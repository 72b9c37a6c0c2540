#!/usr/bin/env bash
# Installs what the tests need into .venv and runs them, a process a core, up to four. Arguments go to pytest: -m slow
# runs the long ones, -n 0 all in one process.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
source ./setup.sh requirements-dev.txt
.venv/bin/ruff check .
.venv/bin/ruff format --check .
.venv/bin/mypy
# Each process computes with one thread: two with as many threads as cores would wait for each other.
OMP_NUM_THREADS=1 .venv/bin/python -m pytest -n auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder "$@"
