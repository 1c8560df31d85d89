#!/usr/bin/env bash
# A TPU slice of Google Cloud from nothing to a finished run, and back to nothing. One verb at a time:
#
#   bash launch/tpu_vm.sh create --name=lema --zone=us-west4-a --type=v5litepod-8 [--spot] [--wait]
#   bash launch/tpu_vm.sh setup  --name=… --zone=…             copies this folder to every worker and installs it
#   bash launch/tpu_vm.sh start  --name=… --zone=… -- -m lema_jax.train --config=configs/… --config.out=gs://…
#   bash launch/tpu_vm.sh tail | status | stop --name=… --zone=…
#   bash launch/tpu_vm.sh fetch  --from=gs://… --to=runs/x
#   bash launch/tpu_vm.sh delete --name=… --zone=…             asks first, or takes --yes
#   bash launch/tpu_vm.sh run    (create's flags) -- (start's command)
#
# `run` does it all and stays: it creates, sets up, starts, and watches until the command has ended. When the slice is
# preempted it is deleted, asked for again, set up and started; the run continues from its last checkpoint, which is why
# --config.out and the data must be on gs://. It asks once, at the start, or takes --yes.
#
# Everywhere: [--project=ID] [--version=RUNTIME] [--dry_run] (prints the exact commands that change something).
# What this does to a cloud account: one queued resource and its node, named --name. Nothing else is touched.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# shellcheck source=launch/verbs.sh
. "$here/launch/verbs.sh"

name='' zone='' type='' version='' spot='' wait='' project=''
read_words "name zone type version project" "spot wait" "$@"
where=("--zone=$zone")
[ -z "$project" ] || where+=("--project=$project")
poll=${POLL_SECONDS:-30}

on() { act gcloud compute tpus tpu-vm ssh "$name" "${where[@]}" "--worker=$1" "--command=$2"; }

state() { # of the queued resource; NONE where there is none, UNKNOWN where gcloud does not answer (a network, a permission)
  local text
  if text=$(gcloud compute tpus queued-resources describe "$name" "${where[@]}" '--format=value(state.state)' 2>&1); then
    echo "$text"
  elif grep -q NOT_FOUND <<<"$text"; then
    echo NONE
  else
    echo "$text" >&2
    echo UNKNOWN
  fi
}

await() { # until the slice is there; fails where it never will be
  local now last=''
  while true; do
    now=$(state)
    [ "$now" = "$last" ] || say "$name: $now"
    last=$now
    case $now in
      ACTIVE) return 0 ;;
      FAILED | SUSPENDED | SUSPENDING | DELETING | NONE) return 1 ;;
    esac
    sleep "$poll"
  done
}

runtime() { # the image that goes with a type
  case $type in
    v5litepod-*) echo v2-alpha-tpuv5-lite ;;
    v5p-*) echo v2-alpha-tpuv5 ;;
    v6e-*) echo v2-alpha-tpuv6e ;;
    *) echo tpu-ubuntu2204-base ;;
  esac
}

create() {
  local flags=("--node-id=$name" "--accelerator-type=$type" "--runtime-version=${version:-$(runtime)}")
  [ -z "$spot" ] || flags+=(--spot)
  act gcloud compute tpus queued-resources create "$name" "${where[@]}" "${flags[@]}"
}

remove() {
  act gcloud compute tpus queued-resources delete "$name" "${where[@]}" --force --quiet
  [ -z "$dry_run" ] || return 0
  while [ "$(state)" != NONE ]; do sleep "$poll"; done
}

setup() {
  local pack=${RUNS:-$here/runs}/lema_jax.tar.gz
  act mkdir -p "${RUNS:-$here/runs}"
  act tar -czf "$pack" -C "$here" --exclude=./runs --exclude=./.venv --exclude=./.git --exclude=__pycache__ .
  act gcloud compute tpus tpu-vm scp "$pack" "$name:" "${where[@]}" --worker=all
  on all 'mkdir -p lema_jax && tar -xzf lema_jax.tar.gz -C lema_jax && bash lema_jax/launch/setup.sh tpu,gcs'
}

start() {
  local words
  words=$(printf '%q ' bash launch/again.sh .venv/bin/python "${command[@]}")
  # The exit code goes to a file when the command has ended.
  on all "cd lema_jax && rm -f exit_code && (setsid nohup bash -c $(printf '%q' "$words; echo \$? > exit_code") > log.txt 2>&1 < /dev/null &)"
}

workers() { # the distinct states of all workers: an exit code, `running`, or `idle` (nothing was started, or it is gone)
  gcloud compute tpus tpu-vm ssh "$name" "${where[@]}" --worker=all \
    '--command=cat lema_jax/exit_code 2>/dev/null || (pgrep -f launch/again.s[h] > /dev/null && echo running) || echo idle' 2>/dev/null |
    grep -E '^([0-9]+|running|idle)$' | sort -ru
}

log() { on 0 "tail -n $1 lema_jax/log.txt"; }

watch() { # until the command has ended (prints its exit code), or must be started again (prints `lost`)
  local now
  while true; do
    case $(state) in
      ACTIVE)
        now=$(workers || true)
        case $now in
          *running* | '') ;; # no answer: the network, or a slice about to go
          *idle*) echo lost && return ;;
          *) head -n 1 <<<"$now" && return ;;
        esac
        ;;
      UNKNOWN) ;;
      *) echo lost && return ;;
    esac
    sleep "$poll"
  done
}

run() {
  local code
  while true; do
    case $(state) in
      NONE) create ;;
      FAILED | SUSPENDED | SUSPENDING)
        say "$name is gone; asking for it again"
        remove
        create
        ;;
    esac
    await || { sleep "$poll" && continue; }
    case $(workers || true) in *running*) say "$name is at it already" ;; *) setup && start ;; esac
    code=$(watch)
    case $code in
      lost) say "$name has lost the run; it goes on from its last checkpoint" ;;
      0) say "done. $name costs money until: bash launch/tpu_vm.sh delete --name=$name --zone=$zone" && return ;;
      *)
        log 20 || true
        fail "the command ended with exit code $code; $name is kept, to look at" "$code"
        ;;
    esac
  done
}

[ "$verb" = fetch ] || need name zone
case $verb in
  create)
    need type
    ask "Create $name ($type${spot:+, spot}) in $zone? It costs money until it is deleted."
    create
    [ -z "$wait" ] || [ -n "$dry_run" ] || await || fail "$name is $(state); look at it, or delete it"
    ;;
  setup) setup ;;
  start) need_command '-m lema_jax.train' && start ;;
  run)
    need type
    need_command '-m lema_jax.train'
    case "${command[*]}" in *gs://*) ;; *) say "warning: the command names nothing on gs://; a preempted slice takes its checkpoints along" ;; esac
    ask "Create $name ($type${spot:+, spot}) in $zone, and again whenever it is preempted? It costs money until it is deleted."
    if [ -n "$dry_run" ]; then
      create && setup && start
    else
      [ "$(state)" != UNKNOWN ] || fail "gcloud does not answer for $name in $zone (its message is above)"
      run
    fi
    ;;
  tail) on 0 "tail -n 100 -F lema_jax/log.txt" ;;
  status)
    now=$(state)
    say "$name: $now"
    [ "$now" != ACTIVE ] || { say "workers: $(workers | tr '\n' ' ')" && log 3; }
    ;;
  stop)
    ask "Stop the run on $name? It saves first."
    on all 'pkill -TERM -f launch/again.s[h]'
    ;;
  fetch) fetch ;;
  delete)
    ask "Delete $name in $zone and everything on its disks?"
    remove
    ;;
  *) fail "say create, setup, start, run, tail, status, stop, fetch or delete; $usage" 2 ;;
esac
