#!/usr/bin/env bash
# The question and an answer on the built-in task: a small LLaMA learns arithmetic word problems, makes mistakes, has them
# corrected, and learns from them, in several arms with several seeds (configs/study_arithmetic.py). Needs Python >= 3.11
# and a package index, no more.
# Killed anywhere, the same command goes on from there.      RUNS=elsewhere bash launch/quickstart.sh
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
bash launch/setup.sh
. launch/stages.sh

stage "the study: what it runs, and what it can show"
lema study --config=configs/study_arithmetic.py --config.out="${RUNS:-runs}/quickstart" --plan

stage "student, attempts, corrections; then data, training and answers of each arm and seed"
lema study --config=configs/study_arithmetic.py --config.out="${RUNS:-runs}/quickstart" "$@"
