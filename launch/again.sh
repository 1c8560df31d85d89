#!/usr/bin/env bash
# Runs a command again whenever it ends with exit code 42 (the trainer was preempted and has saved) or 143 (SIGTERM came
# before Python could handle it). Every other code ends this script with the same code. Five such ends, each within a
# minute of the command's start, are a fault, and end it too.
#
#   bash launch/again.sh .venv/bin/python -m lema_jax.train --config=… --config.out=gs://…
set -uo pipefail
[ $# -gt 0 ] || { sed -n '2,6p' "$0" >&2; exit 2; }

quick=0
trap 'stopped=1; kill -TERM "${child:-}" 2>/dev/null' TERM INT
while true; do
  began=$SECONDS
  "$@" &
  child=$!
  [ -z "${stopped:-}" ] || kill -TERM "$child" 2>/dev/null # the signal came before there was a process to pass it to
  code=0
  wait "$child" || code=$?
  # A trapped signal ends `wait` at once; the trainer is still saving.
  while kill -0 "$child" 2>/dev/null; do
    code=0
    wait "$child" || code=$?
  done
  if [ "$code" != 42 ] && [ "$code" != 143 ] || [ -n "${stopped:-}" ]; then exit "$code"; fi
  if [ $((SECONDS - began)) -lt "${QUICK_SECONDS:-60}" ]; then quick=$((quick + 1)); else quick=0; fi
  if [ "$quick" -ge 5 ]; then
    echo "again.sh: five stops within a minute each; giving up" >&2
    exit "$code"
  fi
  echo "again.sh: stopped by a signal, its work is saved; going on" >&2
done
