#!/bin/sh
# recipes/launch/deepspeed.sh 2 pretrain recipes/zh-64m/pretrain.yaml optimizer.name=adamw
# Any node that has the `deepspeed` extra; ZERO chooses the file of recipes/deepspeed.
set -eu
processes=$1
shift
exec deepspeed --num_gpus "$processes" --module mengya "$@" \
    strategy.name=deepspeed "strategy.deepspeed_config=recipes/deepspeed/zero${ZERO:=2}.json"
