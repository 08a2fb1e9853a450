"""Run by torchrun in test_recovery.py: two ranks, of which only the second meets the bad batches.

usage: torchrun --nproc_per_node 2 two_ranks.py FOLDER FACTOR
"""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path

import torch
from safetensors.torch import save_file

from mengya.training.distributed.ddp import DDP
from mengya.training.execution import Execution
from tests.helpers.planted_trouble import planted, train


def main(folder: Path, factor: float) -> None:
    strategy = DDP(Execution(torch.device("cpu")))
    bad = (41, 42, 43) if strategy.rank == 1 else ()
    model, state = train(folder, planted(bad), factor, strategy=strategy)
    save_file(
        {name: p.detach().clone() for name, p in model.named_parameters()},
        folder / f"rank{strategy.rank}.safetensors",
    )
    (folder / f"rank{strategy.rank}.json").write_text(json.dumps(asdict(state)))
    strategy.close()


if __name__ == "__main__":
    main(Path(sys.argv[1]), float(sys.argv[2]))
