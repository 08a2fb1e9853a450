"""The contract of a format of `mengya export to=NAME`: written by us, read back by another program.

To add one: a module with its options and a `Format` of them, and its lines in `formats`. A format knows
nothing of the proof, the model card or the verb. Optional packages are imported where they are used
(runtime.optional.require), so that `mengya export --keys` works without them.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Generic, TypeVar

from mengya.config import Config
from mengya.export.parity.bounds import Bounds
from mengya.export.reader import Reader
from mengya.export.source import Source
from mengya.models.causal_lm import CausalLM

Options = TypeVar("Options", bound=Config)


@dataclass(frozen=True)
class Usage:
    """One way to use what was written, for the model card.

    Attributes:
        program: what runs it, as "ollama".
        code: what is typed; FOLDER stands for the folder (or the hub's name of it).
        language: of the code block: sh or python.
        chat: for chat models (True) or base models (False) alone; None: for both.
    """

    program: str
    code: str
    language: str = "sh"
    chat: bool | None = None


class Format(ABC, Generic[Options]):
    """A format. In this order: `check`, `write`, `readers` (the proof), model card, `publish`.

    Attributes:
        name: as in to=NAME, and the key of its options.
        library_name: of the hub, for the header of the model card; None: it has no name for it.
        tags: of the hub, more than those of every card.
    """

    name: ClassVar[str]
    library_name: ClassVar[str | None] = None
    tags: ClassVar[tuple[str, ...]] = ()

    def check(self, source: Source, options: Options) -> None:
        """Refuse what the format cannot hold, before anything is written.

        Raises:
            UserError: says why, and what to type instead.
        """

    @abstractmethod
    def write(self, source: Source, directory: Path, options: Options) -> None:
        """Write all files into the folder, which exists and will be renamed when the proof is done."""

    def rounded(self, source: Source, options: Options) -> CausalLM | None:
        """The source's model with the numbers that `write` stores; None: its own, or not known.

        With it the proof tells faults from what rounding costs.
        """
        return None

    @abstractmethod
    def readers(self, source: Source, directory: Path, options: Options) -> Iterator[Reader]:
        """Open what was written, by one program after another; at least one."""

    @abstractmethod
    def bounds(self, source: Source, options: Options) -> Bounds:
        """How far answers may differ from those of the source; None in it: the format has no such thing."""

    def usage(self, options: Options) -> list[Usage]:
        """How to use the folder, best first."""
        return []

    def publish(self, directory: Path, options: Options) -> None:
        """What follows when the folder is proven and in its final place, such as a push to a hub."""
