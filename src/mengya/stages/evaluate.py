"""`mengya evaluate CHECKPOINT`: measure a checkpoint; print a table; keep the results in evaluation.json.

`measure` returns the numbers; `run` also prints them, and saves each as soon as it is measured.
"""

from __future__ import annotations

import sys

from rich.console import Console

from mengya.evaluation.config import EvaluateConfig
from mengya.evaluation.measure import measure, open_file
from mengya.evaluation.results import results_table

__all__ = ["EvaluateConfig", "measure", "open_file", "run"]


def run(config: EvaluateConfig) -> None:
    """Measure, print a table, and write the results as JSON."""
    if config.lists:
        Console().print(config.lists, highlight=False, markup=False, soft_wrap=True)
        return
    with open_file(config) as file:
        result = measure(config, show_progress=sys.stderr.isatty(), file=file)
    Console().print(results_table(result))
    Console(stderr=True).print(f"written to {file.path}", highlight=False, markup=False)
