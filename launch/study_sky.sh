#!/usr/bin/env bash
# A study on whichever clouds SkyPilot finds machines in: a managed job for each of its jobs, wave by wave.
#
#   bash launch/study_sky.sh --bucket=gs://b/studies [--sky=--gpus=A100:1] [--dry_run] -- \
#       --config=configs/study_qwen_gsm8k.py --config.out=/study/qwen --config.student=/study/models/qwen
#
# Behind -- stand the flags of lema_jax.study; every job mounts the bucket at /study. This script waits for each wave
# before it launches the next; killed, the same command goes on: jobs that are done end at once. The last job writes the
# report: gcloud storage rsync -r gs://b/studies/qwen runs/qwen
set -uo pipefail
python=${PYTHON:-.venv/bin/python}
cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit
. launch/verbs.sh
bucket="" sky=""
read_words "bucket sky" "" study "$@"
need bucket
need_command "lema_jax.study"
IFS=, read -r -a options <<<"$sky"

launch() { # name, further flags of the study
  act sky jobs launch --yes --detach-run --name="$1" "${options[@]}" --env="BUCKET=$bucket" \
    --env="FLAGS=${command[*]} ${*:2}" launch/study_sky.yaml
}

wait_for() { # names: until none of them waits or runs
  local names waiting
  names=$(IFS='|' && echo "$*")
  while [ -z "$dry_run" ]; do
    waiting=$(sky jobs queue) || fail "sky jobs queue says nothing; the jobs go on, and so does the same command"
    waiting=$(grep -E "\b($names)\b" <<<"$waiting" | grep -cE 'PENDING|SUBMITTED|STARTING|RUNNING|RECOVERING|CANCELLING')
    [ "$waiting" -gt 0 ] || return 0
    sleep "${POLL_SECONDS:-60}"
  done
}

waves=$("$python" -m lema_jax.study "${command[@]}" --waves) || exit
while read -r -a ids; do
  [ ${#ids[@]} -gt 0 ] || continue
  say "wave of ${#ids[@]}"
  for id in "${ids[@]}"; do launch "study-$id" "--job=$id" </dev/null || fail "sky took no further job"; done
  wait_for "${ids[@]/#/study-}"
done <<<"$waves"
launch study-report
wait_for study-report
