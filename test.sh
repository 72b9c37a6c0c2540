#!/usr/bin/env bash
# Installs what the tests need into .venv, then runs lint, types and tests, with one process per core, at most four.
# Arguments go to pytest: -m slow runs the long tests, -n 0 uses a single process.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
source ./setup.sh requirements-dev.txt
.venv/bin/ruff check .
.venv/bin/ruff format --check .
.venv/bin/mypy
# One thread per process: processes with a thread per core would wait for each other.
OMP_NUM_THREADS=1 .venv/bin/python -m pytest -n auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder "$@"
