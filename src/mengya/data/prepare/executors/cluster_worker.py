"""What runs on the workers of a Dask cluster: the plan of a run arrives as a plugin, chunks as tasks.

The scheduler gives a plugin to every worker, also to one that joins later, so a plan is never lost with the
workers that hold it. Imported only where Dask is installed.
"""

from __future__ import annotations

import hashlib
import pickle
import tempfile
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

from distributed import WorkerPlugin

from mengya.data.ingest.reading.records import Chunk
from mengya.data.prepare.encoding.encode import Encoder
from mengya.data.prepare.encoding.plan import EncodingPlan
from mengya.data.prepare.outcome.encoded_chunk import EncodedChunk
from mengya.version import __version__

_plans: dict[str, PlanPlugin] = {}


class PlanPlugin(WorkerPlugin):
    """A plan, with the files of its tokenizer for machines that do not have its folder.

    Attributes:
        name: unlike that of every other plan.
    """

    def __init__(self, plan: EncodingPlan) -> None:
        """Text needs no files: the plan has its tokenizer as JSON."""
        folder = Path(plan.tokenizer_path)
        files = sorted(folder.iterdir()) if plan.kind != "text" else []
        self.plan = plan
        self.tokenizer = {path.name: path.read_bytes() for path in files if path.is_file()}
        digest = hashlib.sha256(pickle.dumps((plan, self.tokenizer))).hexdigest()
        self.name = f"mengya-prepare-{digest}"

    def setup(self, worker: Any) -> None:
        _plans[self.name] = self

    def teardown(self, worker: Any) -> None:
        _plans.pop(self.name, None)

    def encoder(self) -> Encoder:
        """An encoder of the plan, with the tokenizer that came with it."""
        if not self.tokenizer:
            return Encoder(self.plan)
        with tempfile.TemporaryDirectory(prefix="mengya-tokenizer-") as folder:
            for name, content in self.tokenizer.items():
                Path(folder, name).write_bytes(content)
            return Encoder(replace(self.plan, tokenizer_path=folder))


class _Encoders(threading.local):
    """Of each thread of a worker, the encoder of the run that it worked for last."""

    name = ""
    encoder: Encoder | None = None


_encoders = _Encoders()


def encode(plan: str, source: int, chunk: Chunk) -> EncodedChunk:
    """Encode a chunk by the plan of a name."""
    if _encoders.encoder is None or _encoders.name != plan:
        _encoders.encoder, _encoders.name = _plans[plan].encoder(), plan
    return _encoders.encoder(source, chunk)


def version() -> str:
    """Of mengya, on this worker."""
    return __version__
