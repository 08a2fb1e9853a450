"""Random numbers as a function of the position in a run."""

from __future__ import annotations

import hashlib


def seed_step(seed: int, step: int, rank: int) -> None:
    """Seed torch for one step, so that the random numbers of a run are a function of its position."""
    import torch

    text = f"{seed}/{step}/{rank}".encode()
    torch.manual_seed(int.from_bytes(hashlib.blake2b(text, digest_size=7).digest(), "little"))
