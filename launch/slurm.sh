#!/usr/bin/env bash
# Trains on the nodes of a SLURM allocation, one process a node. From the checkout:
#
#   sbatch --nodes=2 --gpus-per-node=8 launch/slurm.sh \
#       --config=configs/qwen4b.py:gpu8 --workdir=/shared/runs/qwen4b
#
# The checkout, its .venv and the work folder must be seen by every node (or the work folder is on
# gs://). Flags of sbatch come before the script and replace those below; after it come those of
# launch/train.py.
#
#   launch/slurm.sh --dry_run FLAGS...   print what would run
#   SEIRENES_RESTARTS=50                 how often the job may be queued again
#
# 90 s before its time is over, and when it is preempted, the run saves and the job is queued again.
# Exit codes: 0 done; 1 and 2 as launch/train.py; 75 is queued again, as is whatever else ends a
# process.
#SBATCH --job-name=seirenes
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=16
#SBATCH --time=24:00:00
#SBATCH --signal=USR1@90
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=slurm-%j.out
set -uo pipefail

# One process of the run: passes signals on, leaves its exit code where the job looks for it.
if [ "${1:-}" = --task ]; then
  codes=$2
  shift 2
  # Without this JAX takes one device a task.
  if [ "${SLURM_GPUS_ON_NODE:-0}" -gt 0 ]; then
    JAX_LOCAL_DEVICE_IDS=$(seq -s, 0 $((SLURM_GPUS_ON_NODE - 1)))
    export JAX_LOCAL_DEVICE_IDS
  fi
  .venv/bin/python launch/train.py --coordinator=auto "$@" &
  pid=$!
  for name in USR1 TERM; do
    # shellcheck disable=SC2064  # the name of now
    trap "kill -s $name $pid" "$name"
  done
  wait "$pid"
  code=$?
  while kill -0 "$pid" 2>/dev/null; do # it was a signal that woke us
    wait "$pid"
    code=$?
  done
  echo "$code" >"$codes/$SLURM_PROCID"
  exit "$code"
fi

root=${SLURM_SUBMIT_DIR:-$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)}
cd "$root" || exit 2
dry_run=
if [ "${1:-}" = --dry_run ]; then
  dry_run=yes
  shift
fi
if [ $# -eq 0 ] || [ ! -f launch/train.py ]; then
  echo "error: wanted sbatch launch/slurm.sh --config=... from the checkout; got '$*' in $root" >&2
  exit 2
fi
codes=$root/.slurm/${SLURM_JOB_ID:-dry}
# Not killed with the first that ends: each says why it ended.
run=(srun --ntasks-per-node=1 --kill-on-bad-exit=0 bash launch/slurm.sh --task "$codes" "$@")
again=(scontrol requeue "${SLURM_JOB_ID:-dry}")
if [ -n "$dry_run" ]; then
  printf '%q ' "${run[@]}"
  echo
  echo "on exit code 75: $(printf '%q ' "${again[@]}")"
  exit 0
fi
[ -n "${SLURM_JOB_ID:-}" ] || {
  echo "error: not inside a SLURM job; wanted sbatch launch/slurm.sh ... (or --dry_run)" >&2
  exit 2
}
mkdir -p "$codes" && rm -f "$codes"/*
trap : USR1 # it is meant for the processes (ignored, it would be so in them, too)
"${run[@]}"
worst=$?
for code in 1 2; do # a failure that a restart cannot mend, even where the others only lost a peer
  if grep -qsx "$code" "$codes"/*; then
    exit "$code"
  fi
done
[ "$worst" -ne 0 ] || exit 0
if [ "${SLURM_RESTART_COUNT:-0}" -ge "${SEIRENES_RESTARTS:-50}" ]; then
  echo "queued again ${SLURM_RESTART_COUNT:-0} times already; not once more" >&2
  exit 75
fi
echo "exit code $worst; queued again" >&2
"${again[@]}" || exit 75
