#!/bin/sh
# One node, all its GPUs:   recipes/launch/torchrun.sh pretrain recipes/zh-64m/pretrain.yaml
# Two nodes, on each:       NODES=2 HOST=node-0 recipes/launch/torchrun.sh pretrain recipes/...
# HOST is the first node.
set -eu
: "${NODES:=1}" "${PROCESSES:=gpu}" "${PORT:=29500}" "${ID:=mengya}"
if [ "$NODES" -eq 1 ]; then
    exec torchrun --standalone --nproc_per_node "$PROCESSES" -m mengya "$@"
fi
exec torchrun --nnodes "$NODES" --nproc_per_node "$PROCESSES" \
    --rdzv_backend c10d --rdzv_endpoint "${HOST:?the first node}:$PORT" --rdzv_id "$ID" -m mengya "$@"
