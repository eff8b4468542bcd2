#!/usr/bin/env bash
# Test under Slurm.
#   slurm_test.sh PARTITION JOB_NAME CONFIG CHECKPOINT [options of test]
# Variables: the same as for slurm_train.sh.
set -euo pipefail
usage="usage: $0 PARTITION JOB_NAME CONFIG CHECKPOINT [options of test]"
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
checkpoint=$4
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
    "${PYTHON:-python}" -u "$(dirname "${BASH_SOURCE[0]}")/test.py" "$config" "$checkpoint" \
    --launcher slurm "${@:5}"
