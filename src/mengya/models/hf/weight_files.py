"""The tensors of a folder's safetensors files, by name, read one at a time."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from torch import Tensor

from mengya.errors import UserError


class StoredTensors(Mapping[str, Tensor]):
    """Names and tensors of a folder. The files stay mapped into memory as long as this is there.

    Raises:
        UserError: a file is missing or damaged, when it is opened or a tensor is read; only pickled
            weights are there; a name is in two files.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._open: dict[Path, Any] = {}
        self._places: dict[str, Path] = {}
        for file in weight_files(directory):
            with _readable(file):
                self._open[file] = safe_open(file, framework="pt")
                names = list(self._open[file].keys())
            if twice := self._places.keys() & set(names):
                raise UserError(
                    f"{directory}: {min(twice)} is in two files; copy or download the folder again"
                )
            self._places |= dict.fromkeys(names, file)

    def file_of(self, name: str) -> Path:
        """The file that holds a tensor."""
        return self._places[name]

    def __getitem__(self, name: str) -> Tensor:
        file = self._places[name]
        with _readable(file):
            return self._open[file].get_tensor(name)

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def __len__(self) -> int:
        return len(self._places)


@contextmanager
def _readable(file: Path) -> Iterator[None]:
    try:
        yield
    except (SafetensorError, OSError) as error:
        raise UserError(
            f"{file} is damaged or missing ({error}); copy or download it again"
        ) from error


def weight_files(directory: Path) -> list[Path]:
    """model.safetensors of a folder, or the shards that its index names.

    Raises:
        UserError: there are none, or they cannot be trusted.
    """
    index = directory / "model.safetensors.index.json"
    single = directory / "model.safetensors"
    if single.exists():
        return [single]
    if index.exists():
        try:
            names = json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()
        except (ValueError, KeyError, AttributeError, TypeError, RecursionError) as error:
            raise UserError(f"{index} is not a shard index: {error!r}; copy it again") from error
        if outside := [name for name in names if Path(name).name != name]:
            raise UserError(f"{index} points outside its folder: {outside[0]}; download it again")
        return [directory / name for name in sorted(set(names))]
    if pickled := [*directory.glob("*.bin"), *directory.glob("*.pt"), *directory.glob("*.pth")]:
        raise UserError(
            f"{pickled[0]}: pickled weights can run code when opened, they are never read; convert "
            "them where you trust them: AutoModelForCausalLM.from_pretrained(DIR)"
            ".save_pretrained(OUT), then use OUT"
        )
    raise UserError(f"{directory} holds no model.safetensors and no model.safetensors.index.json")
