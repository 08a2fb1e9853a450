"""A GGUF file as transformers reads it: an `export.reader.Reader`.

transformers knows some of llama.cpp's architectures, and takes no notice of a head width, of how positions
are scaled or of how experts are weighted: these come from config.json. The weights, the vocabulary and the
template are the file's.
"""

from __future__ import annotations

from contextlib import redirect_stderr
from io import StringIO
from pathlib import Path

import torch
import transformers
from gguf import GGUFReader
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerFast

from mengya.export.gguf.metadata import architecture
from mengya.export.hf import TransformersFolder
from mengya.models.config.model import ModelConfig
from mengya.models.hf.config import config_to_hf

_STOP = ("eos", "eot", "eom")
_READ = ("qwen3", "qwen2", "llama", "qwen3moe", "qwen2moe")


def is_readable(config: ModelConfig) -> bool:
    """Whether transformers knows the architecture that the model is written as."""
    return architecture(config) in _READ


class TransformersGguf(TransformersFolder):
    """The file, computed in fp32 on the CPU.

    Args:
        config: of the model that was written.
    """

    def __init__(self, path: Path, config: ModelConfig) -> None:
        self.program = f"transformers {transformers.__version__}"
        folder, name = str(path.parent), path.name
        with redirect_stderr(StringIO()):  # its progress bars, one of which has no switch
            tokenizer = AutoTokenizer.from_pretrained(folder, gguf_file=name, local_files_only=True)
            hf = AutoConfig.for_model(**config_to_hf(config, torch.float32))
            model = AutoModelForCausalLM.from_pretrained(
                folder, gguf_file=name, config=hf, dtype=torch.float32, local_files_only=True
            )
        assert isinstance(tokenizer, PreTrainedTokenizerFast)
        self._tokenizer, self._model = tokenizer, model.eval()
        fields = GGUFReader(path).fields
        found = (fields.get(f"tokenizer.ggml.{name}_token_id") for name in _STOP)
        self._stop = {int(field.contents()) for field in found if field is not None}

    def stop_token_ids(self) -> set[int]:
        """Those that the file names: transformers reads one of them only, eos."""
        return self._stop
