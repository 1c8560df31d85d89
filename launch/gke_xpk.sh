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
# trainer saves on SIGTERM and exits with 42, on which xpk's jobs are restarted (as they are on 127 to 255).
# Everywhere: [--project=ID] [--dry_run] (prints the exact commands that change something).
set -euo pipefail
# shellcheck source=launch/verbs.sh
. "$(dirname "${BASH_SOURCE[0]}")/verbs.sh"

name='' cluster='' zone='' type='' image='' slices=1 restarts=50 project=''
read_words "name cluster zone type image slices restarts project" "" "$@"
where=("--cluster=$cluster" "--zone=$zone")
[ -z "$project" ] || where+=("--project=$project")

case $verb in
  start)
    need name cluster zone type image
    need_command 'python -m lema_jax.train'
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
  fetch) fetch ;;
  delete)
    need name cluster zone
    ask "Delete the job $name of $cluster?"
    act xpk workload delete "--workload=$name" "${where[@]}" --force
    ;;
  *) fail "say start, status, tail, fetch or delete; $usage" 2 ;;
esac
