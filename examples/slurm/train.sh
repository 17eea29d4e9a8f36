#!/bin/bash
# One task of the training, started by srun on each node: the first starts Ray and trains, the others would join its cluster.
set -euo pipefail
if [ "${SLURM_PROCID:-0}" -ne 0 ]; then
    exit 0 # here: ray start --address "$HEAD" --block
fi
exec python "${TQ_EXAMPLES:?the folder examples/ of this repository, on a disk that all nodes see}/plain/loop.py" --steps "${STEPS:-60}"
