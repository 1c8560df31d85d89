#!/usr/bin/env bash
# A run on a GKE cluster that has TPU node pools, as a JobSet made by xpk (pip install xpk). One verb at a time:
#
#   bash launch/gke_xpk.sh start  --name=lema --cluster=C --zone=Z --type=v5litepod-8 [--slices=1] [--restarts=50]
#       --image=IMAGE -- python -m lema_jax.train --config=configs/… --config.out=gs://…
#   bash launch/gke_xpk.sh status | tail --name=… --cluster=… --zone=…
#   bash launch/gke_xpk.sh fetch  --from=gs://… --to=runs/x
#   bash launch/gke_xpk.sh delete --name=… --cluster=… --zone=…       asks first, or takes --yes
#
# IMAGE holds this package and its extras [tpu,gcs]. A preempted or drained slice is asked for again by the cluster; the
# trainer saves when it is told to stop and ends with 42, on which xpk's jobs begin again (as they do on 127 to 255).
# Everywhere: [--project=ID] [--dry_run] (prints the exact commands that change something).
set -euo pipefail

verb=${1:-}
[ $# -gt 0 ] && shift
name='' cluster='' zone='' type='' image='' slices=1 restarts=50 project='' from='' to='' dry='' yes='' command=()
while [ $# -gt 0 ]; do
  case $1 in
    --name=*) name=${1#*=} ;;
    --cluster=*) cluster=${1#*=} ;;
    --zone=*) zone=${1#*=} ;;
    --type=*) type=${1#*=} ;;
    --image=*) image=${1#*=} ;;
    --slices=*) slices=${1#*=} ;;
    --restarts=*) restarts=${1#*=} ;;
    --project=*) project=${1#*=} ;;
    --from=*) from=${1#*=} ;;
    --to=*) to=${1#*=} ;;
    --dry_run) dry=1 ;;
    --yes) yes=1 ;;
    --)
      shift
      command=("$@")
      break
      ;;
    *)
      echo "error: unknown argument $1; see the top of launch/gke_xpk.sh" >&2
      exit 2
      ;;
  esac
  shift
done
where=("--cluster=$cluster" "--zone=$zone")
[ -z "$project" ] || where+=("--project=$project")

fail() {
  echo "error: $1" >&2
  exit "${2:-1}"
}
need() {
  local flag
  for flag in "$@"; do
    [ -n "${!flag}" ] || fail "--$flag is missing; see the top of launch/gke_xpk.sh" 2
  done
}
act() {
  if [ -n "$dry" ]; then
    printf '%q ' "$@"
    echo
  else
    "$@"
  fi
}

case $verb in
  start)
    need name cluster zone type image
    [ ${#command[@]} -gt 0 ] || fail "what to run is missing: … start … -- python -m lema_jax.train --config=…" 2
    act xpk workload create "--workload=$name" "${where[@]}" "--tpu-type=$type" "--num-slices=$slices" \
      "--docker-image=$image" "--max-restarts=$restarts" --termination-grace-period-seconds=300 \
      "--command=$(printf '%q ' "${command[@]}")"
    ;;
  status)
    need name cluster zone
    xpk workload list "${where[@]}" "--filter-by-job=$name"
    ;;
  tail)
    need name
    kubectl logs --follow --tail=100 "--selector=jobset.sigs.k8s.io/jobset-name=$name,batch.kubernetes.io/job-completion-index=0" --container=jax-tpu
    ;;
  fetch)
    need from to
    act mkdir -p "$to"
    act gcloud storage rsync --recursive "$from" "$to"
    ;;
  delete)
    need name cluster zone
    if [ -z "$yes$dry" ]; then
      answer=''
      read -r -p "Delete the job $name of $cluster? [y/N] " answer || true
      case $answer in y | Y | yes) ;; *) fail "nothing was done; --yes answers beforehand" ;; esac
    fi
    act xpk workload delete "--workload=$name" "${where[@]}" --force
    ;;
  *) fail "say start, status, tail, fetch or delete; see the top of launch/gke_xpk.sh" 2 ;;
esac
