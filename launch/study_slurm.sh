#!/usr/bin/env bash
# A study on a Slurm cluster: its jobs in arrays, each wave after the one that it needs; the last job writes the report.
#
#   bash launch/study_slurm.sh [--dry_run] [--sbatch=--gpus=1,--time=4:00:00] -- --config=configs/study_qwen_gsm8k.py
#
# Behind -- stand the flags of lema_jax.study. The study's folder and .venv are on a file system that all nodes share.
# A job that is preempted is queued again and goes on; a job that fails leaves the others running, and the last job tries
# it once more. The same command again submits only what is missing.
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --signal=B:TERM@300
set -uo pipefail
python=${PYTHON:-.venv/bin/python}

if [ -n "${SLURM_ARRAY_TASK_ID:-}" ]; then # one job of a wave: the ids, then the flags
  read -r -a ids <<<"$1"
  code=0
  "$python" -m lema_jax.study "${@:2}" "--job=${ids[$SLURM_ARRAY_TASK_ID]}" &
  child=$!
  trap 'kill -TERM "$child"' TERM
  wait "$child" || code=$?
  while kill -0 "$child" 2>/dev/null; do # a trapped signal ends `wait` at once; the job is still saving
    code=0
    wait "$child" || code=$?
  done
  if [ "$code" = 42 ]; then
    echo "stopped with its work saved; queued again"
    scontrol requeue "${SLURM_ARRAY_JOB_ID}_$SLURM_ARRAY_TASK_ID"
  fi
  exit "$code"
fi

cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit
. launch/verbs.sh
sbatch=""
read_words "sbatch" "" study "$@"
need_command "lema_jax.study"
waves=$("$python" -m lema_jax.study "${command[@]}" --waves) || exit
IFS=, read -r -a options <<<"$sbatch"
after=()
while read -r -a ids; do
  [ ${#ids[@]} -gt 0 ] || continue
  array=(sbatch --parsable --job-name=lema-study "--array=0-$((${#ids[@]} - 1))" "${after[@]}" "${options[@]}")
  if [ -n "$dry_run" ]; then
    act "${array[@]}" launch/study_slurm.sh "${ids[*]}" "${command[@]}"
    after=(--dependency=afterany:JOB)
  else
    job=$("${array[@]}" launch/study_slurm.sh "${ids[*]}" "${command[@]}") || fail "sbatch took no further wave"
    say "wave of ${#ids[@]}: Slurm job ${job%%;*}"
    after=("--dependency=afterany:${job%%;*}")
  fi
done <<<"$waves"
wrapped=$(printf "%q " "$python" -m lema_jax.study "${command[@]}")
act sbatch --parsable --job-name=lema-report "${after[@]}" "${options[@]}" --wrap="$wrapped"
