"""The small world: sample data generated from a seed, for the demo and the tests.

`generate(out, WorldConfig())` writes pretraining text, conversations, preference pairs and a
closed-book test about one invented town. `SUBJECTS` gives the Chinese name of each test subject.
"""

from mengya.world.generate import WorldConfig, generate, world_of
from mengya.world.text import SUBJECTS

__all__ = ["SUBJECTS", "WorldConfig", "generate", "world_of"]
