#!/usr/bin/env bash
# Test on several GPUs.
#   dist_test.sh CONFIG CHECKPOINT GPUS [options of test]
# Without a GPU, GPUS is the number of processes. Several machines: see dist_train.sh.
set -euo pipefail
usage="usage: $0 CONFIG CHECKPOINT GPUS [options of test]"
if [[ ${1:-} == -h || ${1:-} == --help ]]; then
    echo "$usage"
    exit
fi
if [[ $# -lt 3 || ! $3 =~ ^[1-9][0-9]*$ ]]; then
    echo "$usage" >&2
    exit 2
fi
config=$1
checkpoint=$2
gpus=$3
exec "${PYTHON:-python}" -m torch.distributed.run \
    --nnodes="${NNODES:-1}" --node_rank="${NODE_RANK:-0}" \
    --master_addr="${MASTER_ADDR:-127.0.0.1}" --master_port="${PORT:-29500}" \
    --nproc_per_node="$gpus" \
    "$(dirname "${BASH_SOURCE[0]}")/test.py" "$config" "$checkpoint" --launcher pytorch "${@:4}"
