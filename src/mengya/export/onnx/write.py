"""ONNX files of a model, in fp32 and in int8, as onnxruntime and transformers.js open them.

Takes a `CausalLM`; gives bytes in files, by torch's exporter and onnxruntime's quantizer. Knows no tokenizer.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from mengya.errors import UserError
from mengya.export.onnx.graph import DecoderGraph, input_names, output_names
from mengya.models.causal_lm import CausalLM
from mengya.runtime.optional import require

FULL, INT8 = "model.onnx", "model_quantized.onnx"
# Protocol buffers end at 2 GiB; an eighth is left for the graph.
_MOST_BYTES = 7 * 2**28
_OPSET = 18
_SEVERAL = 2  # sizes of the example: torch.export takes 0 and 1 for constants


def require_packages() -> None:
    """Refuse before the work begins.

    Raises:
        UserError: a package is not installed.
    """
    for module in ("onnx", "onnxscript", "onnxruntime"):
        require(module, "onnx")


def check_size(model: CausalLM) -> None:
    """Refuse a model that does not fit into one ONNX file.

    Raises:
        UserError: says how large it is.
    """
    size = 4 * sum(parameter.numel() for parameter in model.parameters())
    if size > _MOST_BYTES:
        raise UserError(
            f"the model has {size / 2**30:.1f} GiB in fp32, and an ONNX file holds less than 2 GiB (and a "
            "browser still less): write to=gguf instead, which holds it"
        )


def export_graph(model: CausalLM) -> Any:
    """The model as an `onnx.ModelProto`; weights of matrix products are transposed copies in it."""
    config = model.config
    layers, heads = config.num_hidden_layers, (config.num_key_value_heads, config.head_width)
    ids = torch.zeros(_SEVERAL, _SEVERAL + 1, dtype=torch.int64)
    held = [torch.zeros(_SEVERAL, heads[0], _SEVERAL + 3, heads[1]) for _ in range(2 * layers)]
    mask = torch.ones(_SEVERAL, ids.shape[1] + held[0].shape[2], dtype=torch.int64)
    free = torch.export.Dim.DYNAMIC
    rows = {0: free, 1: free}
    with torch.inference_mode(False), torch.no_grad(), _quiet():
        program = torch.onnx.export(
            DecoderGraph(model).eval(),
            (ids, mask, ids.clone(), held),
            dynamo=True,
            opset_version=_OPSET,
            input_names=input_names(config),
            output_names=output_names(config),
            dynamic_shapes=(rows, rows, rows, [{0: free, 2: free}] * (2 * layers)),
            verbose=False,
        )
    assert program is not None  # without a file name it gives the program
    proto = program.model_proto
    _name_dimensions(proto)
    _forget_origin(proto)
    return proto


def write_int8(proto: Any, path: Path) -> None:
    """Weights in int8, one scale for each output; activations are rounded at run time."""
    from onnxruntime.quantization import QuantType, quantize_dynamic

    with _quiet():
        quantize_dynamic(
            proto, path, ["MatMul", "Gather"], per_channel=True, weight_type=QuantType.QInt8
        )


def write_fp32(proto: Any, path: Path) -> None:
    """The graph with a tied output layer sharing the embedding's weights; changes `proto`."""
    import onnx

    _share_embedding(proto)
    onnx.checker.check_model(proto)
    onnx.save(proto, str(path))


def _name_dimensions(proto: Any) -> None:
    """transformers.js makes the first, empty cache by these names: unknown ones have length 0."""
    for value in (*proto.graph.input, *proto.graph.output):
        sizes = value.type.tensor_type.shape.dim
        sizes[0].dim_param = "batch_size"
        if value.name.startswith("past"):
            sizes[2].dim_param = "past_sequence_length"
        elif value.name.startswith("present"):
            sizes[2].dim_param = "total_sequence_length"
        else:
            total = value.name == "attention_mask"
            sizes[1].dim_param = "total_sequence_length" if total else "sequence_length"
    del proto.graph.value_info[:]  # which would name them otherwise


def _forget_origin(proto: Any) -> None:
    """Drop where in our source every node comes from: the paths of this machine, and half of a small file."""
    for part in (proto, proto.graph, *proto.graph.node, *proto.graph.input, *proto.graph.output):
        del part.metadata_props[:]
        part.doc_string = ""


def _share_embedding(proto: Any) -> None:
    """Let the last product transpose the embedding where its weights are the same: half of the bytes."""
    import numpy as np
    from onnx import helper, numpy_helper

    weights = {tensor.name: tensor for tensor in proto.graph.initializer}
    head = next((node for node in proto.graph.node if "logits" in node.output), None)
    rows = next(
        (n for n in proto.graph.node if n.op_type == "Gather" and n.input[0] in weights), None
    )
    if head is None or rows is None or head.op_type != "MatMul" or head.input[1] not in weights:
        return
    matrix, embedding = weights[head.input[1]], weights[rows.input[0]]
    if list(matrix.dims) != list(embedding.dims)[::-1]:
        return
    if not np.array_equal(numpy_helper.to_array(matrix), numpy_helper.to_array(embedding).T):
        return
    transposed = "lm_head.weight_transposed"
    node = helper.make_node(
        "Transpose", [embedding.name], [transposed], name=transposed, perm=[1, 0]
    )
    proto.graph.node.insert(list(proto.graph.node).index(head), node)
    head.input[1] = transposed
    proto.graph.initializer.remove(matrix)


@contextmanager
def _quiet() -> Iterator[None]:
    """Without what the exporter and the quantizer say of packages and steps that nobody asked for."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", None)]
    levels = [logger.level for logger in loggers]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        try:
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)
