"""The file next to the weights that says what a model was trained on; it goes wherever they go.

What is in it is data/training_record.py's; here it is only carried from folder to folder.
"""

from __future__ import annotations

import shutil
from pathlib import Path

TRAINING_DATA = "training_data.json"


def copy_training_data(source: Path | str, destination: Path | str) -> None:
    """The record of one model folder for another that is made of it; nothing where there is none."""
    file = Path(source) / TRAINING_DATA
    if file.is_file() and file.resolve() != (Path(destination) / TRAINING_DATA).resolve():
        shutil.copyfile(file, Path(destination) / TRAINING_DATA)
