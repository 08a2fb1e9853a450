#!/bin/bash
# sbatch --nodes 2 --gpus-per-node 8 recipes/launch/slurm.sh \
#     pretrain recipes/bumblebee-1.5b/pretrain.yaml strategy.name=fsdp
# One torchrun a node, which starts one process a GPU; run_dir must be on a file system that all nodes see.
#SBATCH --job-name=mengya
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=16
#SBATCH --signal=B:TERM@120
#SBATCH --output=runs/slurm-%j.log
set -euo pipefail
host=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
# Slurm ends the job two minutes after this signal: time for the checkpoint of the step that is running.
trap 'kill -TERM "$job"' TERM
srun --kill-on-bad-exit=1 torchrun --nnodes "$SLURM_NNODES" --nproc_per_node "${PROCESSES:-gpu}" \
    --rdzv_backend c10d --rdzv_endpoint "$host:${PORT:-29500}" --rdzv_id "$SLURM_JOB_ID" \
    -m mengya "$@" resume=true &
job=$!
wait "$job" || wait "$job"
