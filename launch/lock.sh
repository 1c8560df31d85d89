#!/usr/bin/env bash
# Remakes launch/constraints.txt, the locked versions of all extras on every Python >= 3.11, by `uv pip compile`.
#
#   bash launch/lock.sh                             keeps the versions that are locked, as far as pyproject.toml lets it
#   bash launch/lock.sh --upgrade                   takes the newest ones
#   bash launch/lock.sh --upgrade-package=jax       takes the newest one of a package
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

tool=$(mktemp -d)
trap 'rm -rf "$tool"' EXIT
"${PYTHON:-python3}" -m venv "$tool"
"$tool/bin/python" -m pip install --quiet --disable-pip-version-check uv
"$tool/bin/uv" pip compile pyproject.toml --all-extras --universal --python-version 3.11 --no-annotate --quiet \
  --custom-compile-command="bash launch/lock.sh" --output-file=launch/constraints.txt "$@"
