#!/usr/bin/env bash
# Makes .venv with the locked versions; a second call finds it done.   bash launch/setup.sh [test,oracle]
# Needs Python >= 3.11 (set PYTHON to choose one) and a package index.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
extras=${1:-}

find_python() {
  local name
  for name in ${PYTHON:-python3 python3.13 python3.12 python3.11 python}; do
    if "$name" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
      command -v "$name"
      return
    fi
  done
  echo "no Python >= 3.11 found (tried ${PYTHON:-python3, python3.13, python3.12, python3.11, python}); set PYTHON to one" >&2
  return 1
}

[ -x .venv/bin/python ] || "$(find_python)" -m venv .venv
stamp=.venv/installed-$(cat pyproject.toml launch/constraints.txt <(echo "$extras") | .venv/bin/python -c 'import hashlib, sys; print(hashlib.sha256(sys.stdin.buffer.read()).hexdigest()[:16])')
if [ ! -f "$stamp" ]; then
  echo "== installing into .venv (a few minutes, once)"
  .venv/bin/python -m pip install --quiet --disable-pip-version-check -c launch/constraints.txt -e ".${extras:+[$extras]}"
  touch "$stamp"
fi
