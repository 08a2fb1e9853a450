"""`to=llama2c`: model.bin and tokenizer.bin for run.c of llama2.c, or any program that reads its files.

FOLDER/model.bin         layout 0: seven integers, then fp32 tensors
FOLDER/tokenizer.bin     the longest piece, then score, length and bytes of every id
FOLDER/token_ids.json    the checkpoint's id of each id there
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

from mengya.config import Config
from mengya.export.format import Format, Usage
from mengya.export.llama2c.model_file import check_model, write_model
from mengya.export.llama2c.reader import Llama2cReader
from mengya.export.llama2c.vocabulary import llama2c_vocabulary, write_vocabulary
from mengya.export.parity.bounds import EXACT, Bounds
from mengya.export.parity.texts import COUNT
from mengya.export.reader import Reader
from mengya.export.source import Source
from mengya.tokenizer.load import stop_token_ids


class Llama2cOptions(Config):
    """None: the layout leaves nothing to choose."""


class Llama2cFormat(Format[Llama2cOptions]):
    """For text that is continued: run.c renders no chat template but Llama 2's."""

    name: ClassVar[str] = "llama2c"

    def check(self, source: Source, options: Llama2cOptions) -> None:
        check_model(source.model.config)
        llama2c_vocabulary(source.tokenizer, source.model.config.vocab_size)

    def write(self, source: Source, directory: Path, options: Llama2cOptions) -> None:
        vocabulary = llama2c_vocabulary(source.tokenizer, source.model.config.vocab_size)
        write_vocabulary(vocabulary, directory)
        write_model(source.model, vocabulary.ours, directory / "model.bin")

    def readers(self, source: Source, directory: Path, options: Llama2cOptions) -> Iterator[Reader]:
        yield Llama2cReader(directory)

    def bounds(self, source: Source, options: Llama2cOptions) -> Bounds:
        """Ids may differ in any of the texts, as run.c splits none before it merges: they are counted in
        parity.json, not bounded. It ends at one token."""
        stops = len(stop_token_ids(source.tokenizer))
        return replace(EXACT, token_ids=COUNT, prompt_ids=None, prompts=None, stop_tokens=stops - 1)

    def usage(self, options: Llama2cOptions) -> list[Usage]:
        return [Usage("llama2.c", './run FOLDER/model.bin -z FOLDER/tokenizer.bin -i "从前有座山"')]


LLAMA2C = Llama2cFormat()
