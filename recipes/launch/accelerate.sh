#!/bin/sh
# recipes/launch/accelerate.sh 2 pretrain recipes/zh-64m/pretrain.yaml
# accelerate only starts the processes; strategy.name in the recipe says how they share the work.
set -eu
processes=$1
shift
exec accelerate launch --multi_gpu --num_processes "$processes" --num_machines 1 \
    --mixed_precision no --dynamo_backend no -m mengya "$@"
