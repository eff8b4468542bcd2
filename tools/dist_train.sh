#!/usr/bin/env bash
# Train on several GPUs of one or more machines.
#   dist_train.sh CONFIG GPUS [options of train]
# Without a GPU, GPUS is the number of processes.
# Several machines: start it on each with NNODES, NODE_RANK (0 on the first), MASTER_ADDR (the
# first one's address) and PORT set.
set -euo pipefail
usage="usage: $0 CONFIG GPUS [options of train]"
if [[ ${1:-} == -h || ${1:-} == --help ]]; then
    echo "$usage"
    exit
fi
if [[ $# -lt 2 || ! $2 =~ ^[1-9][0-9]*$ ]]; then
    echo "$usage" >&2
    exit 2
fi
config=$1
gpus=$2
exec "${PYTHON:-python}" -m torch.distributed.run \
    --nnodes="${NNODES:-1}" --node_rank="${NODE_RANK:-0}" \
    --master_addr="${MASTER_ADDR:-127.0.0.1}" --master_port="${PORT:-29500}" \
    --nproc_per_node="$gpus" \
    "$(dirname "${BASH_SOURCE[0]}")/train.py" "$config" --launcher pytorch "${@:3}"
