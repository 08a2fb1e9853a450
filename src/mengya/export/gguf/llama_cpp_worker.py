"""llama.cpp in a process of its own: questions as JSON lines on stdin, answers on stdout.

Started by llama_cpp_process with a Python that has llama-cpp-python, so it imports nothing of mengya.
Whatever llama.cpp does to its process (it aborts on bad files), the one that asked lives on.

    {"do": "open", "path": "model.gguf"}   -> {"program": "llama.cpp ...", "stop": [2]}
    {"do": "tokens", "text": "...", "special": false} -> {"ids": [17, 4]}
    {"do": "logits", "ids": [17, 4]}       -> {"shape": [2, 6400], "bytes": 51200}, then these bytes
    {"do": "prompt", "messages": [], ...}  -> {"text": "..."}
    {"do": "quantize", "path": ..., "out": ..., "file_type": 15} -> {}
"""

from __future__ import annotations

import ctypes
import importlib.metadata
import json
import os
import sys
from typing import Any, BinaryIO

import llama_cpp as llama  # pyright: ignore[reportMissingImports]
import numpy as np
from llama_cpp.llama_chat_format import Jinja2ChatFormatter  # pyright: ignore[reportMissingImports]

THREADS = os.cpu_count() or 1


class Worker:
    """One open model at most."""

    def __init__(self) -> None:
        self.model: Any = None
        self.vocab: Any = None

    def open(self, path: str) -> dict[str, Any]:
        params = llama.llama_model_default_params()
        params.use_extra_bufts = (
            False  # AMX kernels of quantized files crash (llama.cpp issue 20824)
        )
        params.n_gpu_layers = 0
        self.model = llama.llama_model_load_from_file(path.encode(), params)
        if not self.model:
            raise ValueError(f"llama.cpp does not load {path}: see its messages above")
        self.vocab = llama.llama_model_get_vocab(self.model)
        count = llama.llama_vocab_n_tokens(self.vocab)
        stop = [i for i in range(count) if llama.llama_vocab_is_eog(self.vocab, i)]
        version = importlib.metadata.version("llama-cpp-python")
        return {"program": f"llama.cpp (llama-cpp-python {version})", "stop": stop}

    def tokens(self, text: str, special: bool) -> dict[str, Any]:
        raw = text.encode()
        ids = (llama.llama_token * (len(raw) + 8))()
        count = llama.llama_tokenize(self.vocab, raw, len(raw), ids, len(ids), False, special)
        return {"ids": list(ids[:count])}

    def logits(self, ids: list[int]) -> np.ndarray:
        """[S, V] fp32, with the cache in fp32 as well."""
        params = llama.llama_context_default_params()
        params.n_ctx = params.n_batch = params.n_ubatch = max(len(ids), 32)
        params.n_threads = params.n_threads_batch = THREADS
        params.type_k = params.type_v = llama.GGML_TYPE_F32
        params.flash_attn_type = llama.LLAMA_FLASH_ATTN_TYPE_DISABLED
        context = llama.llama_init_from_model(self.model, params)
        batch = llama.llama_batch_init(len(ids), 0, 1)
        try:
            batch.n_tokens = len(ids)
            for i, token in enumerate(ids):
                batch.token[i], batch.pos[i], batch.logits[i] = token, i, 1
                batch.n_seq_id[i], batch.seq_id[i][0] = 1, 0
            if llama.llama_decode(context, batch):
                raise ValueError(f"llama.cpp computes no answer for {len(ids)} tokens")
            count = llama.llama_vocab_n_tokens(self.vocab)
            found = llama.llama_get_logits(context)
            return np.ctypeslib.as_array(found, (len(ids), count)).astype(np.float32)
        finally:
            llama.llama_batch_free(batch)
            llama.llama_free(context)

    def prompt(self, messages: Any, tools: Any, options: dict[str, Any]) -> dict[str, Any]:
        """As llama-cpp-python renders the file's own template."""
        template = llama.llama_model_chat_template(self.model, None)
        if template is None:
            return {"text": None}
        bos, eos = llama.llama_vocab_bos(self.vocab), llama.llama_vocab_eos(self.vocab)
        names = [llama.llama_vocab_get_text(self.vocab, i).decode() for i in (eos, bos)]
        formatter = Jinja2ChatFormatter(template.decode(), *names)
        return {"text": formatter(messages=messages, tools=tools, **options).prompt}

    def quantize(self, path: str, out: str, file_type: int) -> dict[str, Any]:
        params = llama.llama_model_quantize_default_params()
        params.ftype, params.nthread = file_type, THREADS
        if llama.llama_model_quantize(path.encode(), out.encode(), ctypes.byref(params)):
            raise ValueError("llama.cpp does not quantize it: see its messages above")
        return {}


def answer(worker: Worker, question: dict[str, Any], out: BinaryIO) -> None:
    """One question -> one line, and bytes for logits."""
    raw = b""
    try:
        result = getattr(worker, question.pop("do"))(**question)
    except Exception as error:  # goes to the process that asked, which raises it there
        result = {"error": f"{type(error).__name__}: {error}"}
    if isinstance(result, np.ndarray):
        raw = np.ascontiguousarray(result).tobytes()
        result = {"shape": list(result.shape), "bytes": len(raw)}
    out.write(json.dumps(result).encode() + b"\n" + raw)
    out.flush()


def main() -> None:
    """Answer until stdin ends. What llama.cpp prints to stdout goes to stderr."""
    out = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    llama.llama_backend_init()
    worker = Worker()
    for line in sys.stdin.buffer:
        answer(worker, json.loads(line), out)


if __name__ == "__main__":
    main()
