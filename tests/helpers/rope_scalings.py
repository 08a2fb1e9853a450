"""Every rope_type of transformers, with settings that change the angles."""

from __future__ import annotations

from typing import Any

TRAINED = 16
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": TRAINED}
SCALINGS: dict[str, dict[str, Any]] = {
    "default": {},
    "linear": {"rope_type": "linear", "factor": 4.0},
    "dynamic": {"rope_type": "dynamic", "factor": 3.0},
    "yarn": YARN,
    "yarn-betas": {**YARN, "beta_fast": 4.0, "beta_slow": 0.5, "attention_factor": 0.9},
    "yarn-mscale": {**YARN, "mscale": 0.7, "mscale_all_dim": 1.3, "truncate": False},
    "yarn-one": {**YARN, "factor": 1.0},
    "longrope-without-factor": {
        "rope_type": "longrope",
        "original_max_position_embeddings": TRAINED,
    },
    "longrope": {
        "rope_type": "longrope",
        "factor": 4.0,
        "original_max_position_embeddings": TRAINED,
    },
}
