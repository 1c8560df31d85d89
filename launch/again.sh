#!/usr/bin/env bash
# Runs a command again whenever it ends with exit code 42: the trainer's, when it was told to stop and has saved; or with
# 143: it was told so before it could heed anything. Every other code ends this too, with the same code. Five
# ends within a minute of their beginning are a fault, not a stop.
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
  [ -z "${stopped:-}" ] || kill -TERM "$child" 2>/dev/null # told to stop before there was a number to tell it to
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
