"""Run in every process of a launcher: the stages named on the command line, one after another.

usage: torchrun ... tests/helpers/together.py pretrain:RECIPE.yaml dpo:RECIPE.yaml ...
One start of the processes serves many runs: importing torch takes longer than most of them.
"""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path
from unittest.mock import patch

import torch
import torch.distributed as dist

from mengya.cli import config_class_of, stage_of
from mengya.config import load_config
from mengya.models.fp8_layers import use_fp8
from mengya.stages.run import assemble
from mengya.training.distributed.process_group import leave_process_group


def main() -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    for job in sys.argv[1:]:
        verb, _, recipe = job.partition(":")
        with patch.object(assemble, "use_fp8", partial(use_fp8, reference=True)):
            stage_of(verb).run(load_config(config_class_of(verb), Path(recipe)))
    leave_process_group()


if __name__ == "__main__":
    main()
