"""Tensors by name in trainer/ of a checkpoint, full or in shards, for any number of ranks to read.

    NAME.safetensors                    written by one rank, or
    NAME-00002-of-00004.safetensors     by each of several, which have shards of DTensors

The layout is that of torch.distributed.checkpoint's safetensors storage, whose reader fills full
tensors and shards of any other size from it, reading no more than it needs. Its own writer plans
together with all ranks; here each rank writes alone, so that a thread can do it. Nothing is pickled.
"""

# pyright: reportPrivateImportUsage=false
# (torch.distributed.checkpoint names its public functions in its documentation, not in __all__)

from __future__ import annotations

import json
import re
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.distributed.checkpoint as dcp
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor
from torch.distributed.checkpoint import HuggingFaceStorageReader
from torch.distributed.checkpoint.default_planner import create_default_local_save_plan
from torch.distributed.tensor import DTensor

from mengya.errors import UserError


class Part(NamedTuple):
    """What one rank writes: its tensors, and the offset of each in the full one."""

    tensors: Mapping[str, Tensor]
    offsets: Mapping[str, list[int]] = {}


@dataclass(frozen=True)
class Stored:
    """A full tensor on disk: its shape and dtype."""

    shape: torch.Size
    dtype: torch.dtype

    def place(self, like: Tensor) -> Tensor:
        """Memory for it on the device of `like`, sharded as `like` is where it has the same shape."""
        if self.shape == like.shape:
            return torch.empty_like(like, dtype=self.dtype, requires_grad=False)
        return torch.empty(self.shape, dtype=self.dtype, device=like.device)


def own_part(tensors: Mapping[str, Tensor], rank: int) -> Part:
    """The shards of this rank; what is not sharded is rank 0's."""
    own: dict[str, Tensor] = {}
    offsets: dict[str, list[int]] = {}
    for name, tensor in tensors.items():
        if not isinstance(tensor, DTensor):
            if rank == 0:
                own[name], offsets[name] = tensor, [0] * tensor.ndim
            continue
        local = tensor.to_local()
        if local.numel():
            (item,) = create_default_local_save_plan({name: tensor}, is_coordinator=False).items
            assert item.index.offset is not None
            own[name], offsets[name] = local, list(item.index.offset)
    return Part(own, offsets)


def write_part(checkpoint: Path, name: str, part: Part, rank: int = 0, ranks: int = 1) -> None:
    """Write this rank's file of NAME; the tensors are contiguous and on the host."""
    folder = checkpoint / "trainer"
    folder.mkdir(exist_ok=True)
    if ranks == 1:
        save_file(dict(part.tensors), folder / f"{name}.safetensors")
        return
    offsets = {key: {"saved_offsets": offset} for key, offset in part.offsets.items()}
    save_file(
        dict(part.tensors),
        folder / f"{name}-{rank + 1:05d}-of-{ranks:05d}.safetensors",
        metadata={"format": "pt", "DCP_VERSION": "1.0", "DCP_SHARDING_INFO": json.dumps(offsets)},
    )


def stored_tensors(checkpoint: Path, name: str) -> dict[str, Stored]:
    """What NAME of a checkpoint holds; empty when it has none."""
    return _stored(checkpoint, name, _open(checkpoint))


def fill(checkpoint: Path, name: str, places: Mapping[str, Tensor]) -> None:
    """Read tensors of NAME into the memory given: full, or the shard that a DTensor has here.

    Raises:
        UserError: a file is damaged.
    """
    reader = _open(checkpoint)
    try:
        with warnings.catch_warnings():
            # Silences DCP's warning that ranks do not plan together: each knows from the files what it needs.
            warnings.filterwarnings("ignore", "torch.distributed is disabled")
            dcp.load(dict(places), storage_reader=reader, no_dist=True)
    except (OSError, SafetensorError, dcp.CheckpointException) as error:
        raise _damaged(checkpoint, name, error) from error


def read_tensors(checkpoint: Path, name: str) -> dict[str, Tensor] | None:
    """All full tensors of NAME on the CPU; None when the checkpoint has none."""
    stored = stored_tensors(checkpoint, name)
    places = {key: torch.empty(of.shape, dtype=of.dtype) for key, of in stored.items()}
    if not places:
        return None
    fill(checkpoint, name, places)
    return places


def _open(checkpoint: Path) -> HuggingFaceStorageReader:
    return HuggingFaceStorageReader(str(checkpoint / "trainer"))


def _stored(checkpoint: Path, name: str, reader: HuggingFaceStorageReader) -> dict[str, Stored]:
    try:
        metadata = reader.read_metadata()
    except (OSError, ValueError, KeyError, SafetensorError) as error:
        raise _damaged(checkpoint, name, error) from error
    wanted = re.compile(rf"{re.escape(name)}(-\d+-of-\d+)?\.safetensors")
    places: Any = metadata.storage_data  # (tensor, offset) -> file
    named = {
        index.fqn for index, at in places.items() if wanted.fullmatch(Path(at.relative_path).name)
    }
    found: Any = metadata.state_dict_metadata
    return {key: Stored(of.size, of.properties.dtype) for key, of in found.items() if key in named}


def _damaged(checkpoint: Path, name: str, error: BaseException) -> UserError:
    files = ", ".join(str(p) for p in sorted((checkpoint / "trainer").glob(f"{name}*.safetensors")))
    return UserError(f"{files} is damaged ({error}); remove {checkpoint} to use an older one")
