"""The example runs as written, and its model has learned the sentences."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

EXAMPLE = Path(__file__).parents[2] / "examples" / "train_in_python.py"


def test_the_example_trains_a_model_that_writes_its_sentences(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, str(EXAMPLE), str(tmp_path)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    text, score = done.stdout.splitlines()[-2:]
    assert text.startswith("阿木在集市上买了"), text
    assert float(score.split()[0]) < 1.5  # an untrained model of this vocabulary needs 7
    assert (tmp_path / "pretrain" / "report.html").is_file()
