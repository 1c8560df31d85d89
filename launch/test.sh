#!/usr/bin/env bash
# Sets up, lints, type-checks and runs the tests; arguments go to pytest:   bash launch/test.sh -m "not slow"
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
bash launch/setup.sh test,oracle,tpu
.venv/bin/ruff check .
.venv/bin/ruff format --check .
.venv/bin/mypy
exec .venv/bin/python -m pytest -q -n 2 --dist worksteal "$@"
