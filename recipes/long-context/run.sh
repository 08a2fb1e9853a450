#!/usr/bin/env bash
# From 1,024 tokens to 4,096. Can be interrupted and run again: training resumes.
# usage: [BASE=runs/zh-26m/pretrain] [SHARDS=runs/zh-26m/shards/text] bash recipes/long-context/run.sh
set -euo pipefail
recipe=recipes/long-context
base=${BASE:-runs/zh-26m/pretrain/checkpoints/latest}
shards=${SHARDS:-runs/zh-26m/shards/text}

mkdir -p runs/long-context
mengya evaluate "$base" $recipe/evaluate.yaml text_shards="$shards/validation" window=1024 \
    out=runs/long-context/before.json
mengya pretrain $recipe/stretch.yaml init_from="$base" data.train="$shards/train" \
    data.validation="$shards/validation" resume=true
mengya evaluate runs/long-context/yarn $recipe/evaluate.yaml text_shards="$shards/validation" \
    out=runs/long-context/after.json
