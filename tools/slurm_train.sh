#!/usr/bin/env bash
# Train under Slurm.
#   slurm_train.sh PARTITION JOB_NAME CONFIG WORK_DIR [options of train]
# Variables: GPUS (8 in all), GPUS_PER_NODE (8 at most), CPUS_PER_TASK (5), SRUN_ARGS, MASTER_PORT.
# GPUS_PER_NODE=0 trains on CPUs, with GPUS processes.
set -euo pipefail
usage="usage: $0 PARTITION JOB_NAME CONFIG WORK_DIR [options of train]"
if [[ ${1:-} == -h || ${1:-} == --help ]]; then
    echo "$usage"
    exit
fi
if [[ $# -lt 4 ]]; then
    echo "$usage" >&2
    exit 2
fi
partition=$1
job_name=$2
config=$3
work_dir=$4
gpus=${GPUS:-8}
gpus_per_node=${GPUS_PER_NODE:-$((gpus < 8 ? gpus : 8))}
placement=()
if ((gpus_per_node > 0)); then
    placement=(--gres="gpu:$gpus_per_node" --ntasks-per-node="$gpus_per_node")
fi
# SRUN_ARGS holds several words on purpose.
# shellcheck disable=SC2086
exec srun -p "$partition" --job-name="$job_name" --ntasks="$gpus" "${placement[@]}" \
    --cpus-per-task="${CPUS_PER_TASK:-5}" --kill-on-bad-exit=1 ${SRUN_ARGS:-} \
    "${PYTHON:-python}" -u "$(dirname "${BASH_SOURCE[0]}")/train.py" "$config" \
    --work-dir "$work_dir" --launcher slurm "${@:5}"
