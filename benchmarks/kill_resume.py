"""A hundred kills of a training run: tests/helpers/kill_resume.py, of which the tests run four.

python benchmarks/kill_resume.py [--kills 100] [--steps 300] [--save-every 10] [--seed 0] [--folder DIR]
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from tests.helpers.kill_resume import main

if __name__ == "__main__":
    main()
