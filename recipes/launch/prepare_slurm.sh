#!/bin/bash
# sbatch --ntasks 64 recipes/launch/prepare_slurm.sh recipes/zh-26m/prepare-text.yaml out=shards/text
# `mengya prepare` on a Dask cluster of one worker a task. The first node reads the sources and writes the
# shards; this folder and the Python environment must be on a file system that all nodes see.
#SBATCH --job-name=mengya-prepare
#SBATCH --cpus-per-task=1
#SBATCH --output=runs/slurm-%j.log
set -euo pipefail
file=$PWD/.dask-$SLURM_JOB_ID.json
trap 'kill $(jobs -p); wait; rm -f "$file"' EXIT
dask scheduler --host "$(hostname)" --port 0 --no-dashboard --scheduler-file "$file" &
srun dask worker --scheduler-file "$file" --nthreads 1 --no-dashboard --local-directory "${TMPDIR:-/tmp}" &
until [ -s "$file" ]; do sleep 1; done
mengya prepare "$@" cluster="$file"
