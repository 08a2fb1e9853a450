#!/usr/bin/env bash
# All stages of the model. Every step can be interrupted and run again: finished ones are skipped, training
# resumes.
# usage: DATA=/path/to/data bash recipes/zh-26m/run.sh
set -euo pipefail
recipe=recipes/zh-26m
: "${DATA:?set DATA to a folder with pretrain/, sft/, dpo/}"
for kind in pretrain sft dpo; do
  if [ ! -d "$DATA/$kind" ]; then
    echo "DATA=$DATA has no folder $kind/; it needs pretrain/, sft/ and dpo/" >&2
    exit 2
  fi
done
mkdir -p data
ln -sfn "$(realpath "$DATA")" data/zh

[ -e runs/zh-26m/tokenizer/tokenizer.json ] || mengya tokenizer $recipe/tokenizer.yaml
for kind in text conversations preferences; do mengya prepare $recipe/prepare-$kind.yaml; done
for stage in pretrain sft dpo; do
  mengya $stage $recipe/$stage.yaml resume=true
  mengya evaluate runs/zh-26m/$stage/checkpoints/latest $recipe/evaluate.yaml out=runs/zh-26m/$stage.json
done
