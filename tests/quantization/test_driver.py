"""Layer by layer over every class: what is solved, with which inputs, and what stays."""

from __future__ import annotations

from typing import Any, cast

import pytest
import torch

from mengya.errors import UserError
from mengya.kernels.quantized.weight import Scheme
from mengya.models.causal_lm import CausalLM, DecoderLayer
from mengya.models.quantized.matrices import matrix_shapes
from mengya.quantization.calibration import CalibrationRows
from mengya.quantization.driver import (
    QuantizationPlan,
    QuantizedLayer,
    collect,
    fold,
    quantize_layers,
)
from mengya.quantization.folds import half_folds
from mengya.quantization.grid import GridRule
from mengya.quantization.groups import layer_halves, model_groups
from mengya.quantization.hidden_states import HiddenStates
from mengya.quantization.methods.awq import Awq
from mengya.quantization.methods.gptq import Gptq
from mengya.quantization.methods.method import Method
from mengya.quantization.methods.rtn import Rtn
from tests.helpers.random_model import FAMILIES, random_model, tiny_config

WIDTHS: dict[str, Any] = {"hidden_size": 64, "intermediate_size": 96, "max_position_embeddings": 64}
LATENT = {"kv_lora_rank": 32, "v_head_dim": 16}
MORE: dict[str, dict[str, Any]] = {
    "Llama": {"num_key_value_heads": 4},  # each head its own values: v -> o folds
    "DeepseekV3": {**LATENT, "q_lora_rank": 32, "moe_intermediate_size": 32},
    "DeepseekV3 dense": LATENT,
}


class Nothing:
    """A store that keeps nothing."""

    def load(self, number: int) -> QuantizedLayer | None:
        return None

    def save(self, number: int, layer: QuantizedLayer) -> None:
        pass


def model_of(family: str) -> CausalLM:
    experts = {"moe_intermediate_size": 32} if "num_experts" in FAMILIES[family] else {}
    return random_model(tiny_config(family, **{**WIDTHS, **experts, **MORE.get(family, {})}))


def random_rows(rows: int = 24, length: int = 32, padding: int = 5) -> CalibrationRows:
    """Two documents a row; the last row ends in padding."""
    generator = torch.Generator().manual_seed(3)
    ids = torch.randint(0, 101, (rows, length), generator=generator)
    positions = torch.cat([torch.arange(length // 2), torch.arange(length // 2)]).repeat(rows, 1)
    documents = torch.tensor([0, 1]).repeat_interleave(length // 2).repeat(rows, 1)
    documents[-1, -padding:] = -1
    return CalibrationRows(ids, positions, documents, {})


def quantized(
    model: CausalLM, method: Method, rows: CalibrationRows | None, bits: int = 4
) -> list[QuantizedLayer]:
    rule = GridRule(Scheme(bits, 32), "mse")
    plan = QuantizationPlan(method, lambda group: rule, torch.device("cpu"))
    return list(quantize_layers(model, plan, rows, Nothing(), lambda record: None))


def logits(model: CausalLM, rows: CalibrationRows) -> torch.Tensor:
    with torch.no_grad():
        out = model(rows.input_ids_RS, rows.position_ids_RS, rows.document_ids_RS).head_output
    return out[rows.document_ids_RS >= 0]


@pytest.mark.parametrize("family", FAMILIES)
def test_every_matrix_once_under_its_name_on_disk(family: str) -> None:
    model = model_of(family)
    names = [m.name for group in model_groups(model) for m in group.matrices()]
    assert sorted(names) == sorted(matrix_shapes(model.config))
    shapes = {
        m.name: tuple(m.weight_OI.shape) for group in model_groups(model) for m in group.matrices()
    }
    assert shapes == matrix_shapes(model.config)


@pytest.mark.parametrize(
    ("family", "method"),
    [*((family, Gptq()) for family in FAMILIES), ("Qwen3Moe", Awq()), ("Qwen3Moe", Rtn())],
    ids=[*FAMILIES, "awq", "rtn"],
)
def test_a_quantized_model_answers_nearly_as_the_full_one(family: str, method: Method) -> None:
    model, rows = model_of(family), random_rows(12)
    before = logits(model, rows)
    layers = quantized(model, method, rows, bits=8)
    difference = (logits(model, rows) - before).norm() / before.norm()
    # A token between two experts may go to the other one.
    assert difference < (0.15 if model.config.num_experts else 0.03), difference
    weights = {name: weight for layer in layers for name, weight in layer.weights.items()}
    places = {m.name: m.weight_OI for group in model_groups(model) for m in group.matrices()}
    assert places.keys() == weights.keys()
    for name, weight in weights.items():
        assert torch.equal(places[name], weight.dequantize()), name


@pytest.mark.parametrize("family", FAMILIES)
def test_folding_alone_changes_no_answer(family: str) -> None:
    """AWQ with grids so fine that only its scaling is left."""
    model, rows = model_of(family), random_rows(12)
    before = logits(model, rows)
    norms = {n: p.clone() for n, p in model.named_parameters() if "layernorm" in n}
    states = HiddenStates(model, rows, torch.device("cpu"))
    rule = GridRule(Scheme(3, 32), "mse")
    plan = QuantizationPlan(Awq(), lambda group: rule, torch.device("cpu"))
    folds = 0
    for number, layer in enumerate(model.model.layers):
        for half in layer_halves(cast(DecoderLayer, layer), number):
            fold(half, plan, collect(half, half.groups, states))
            folds += len(list(half_folds(half)))
            states.advance(half)
    after = logits(model, rows)
    assert (after - before).norm() / before.norm() < 1e-4
    assert any(not torch.equal(model.get_parameter(name), norm) for name, norm in norms.items())
    grouped = model.config.num_key_value_heads != model.config.num_attention_heads
    if family in ("Qwen3", "Llama"):
        assert folds == 2 * (3 if grouped else 4)


def test_later_layers_see_what_the_earlier_ones_became() -> None:
    """The inputs of layer 1 are those of the quantized layer 0, and padding is not among them."""
    model, rows = model_of("Qwen3"), random_rows()
    seen = []

    class Spy(Gptq):
        def solve(self, weight_OI: Any, rule: Any, statistics: Any) -> Any:
            seen.append((statistics.tokens, statistics.hessian_II.clone()))
            return super().solve(weight_OI, rule, statistics)

    quantized(model, Spy(), rows, bits=2)
    assert {tokens for tokens, _ in seen} == {24 * 32 - 5}
    captured = []
    handle = model.get_submodule("model.layers.1.self_attn").register_forward_pre_hook(
        lambda module, arguments: captured.append(arguments[0])
    )
    logits(model, rows)
    handle.remove()
    x = captured[0][rows.document_ids_RS >= 0]
    torch.testing.assert_close(seen[4][1], x.T @ x, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("family", ["Qwen3", "Qwen2Moe"])
def test_inputs_are_compared_with_those_of_the_full_model(family: str) -> None:
    """Nothing differs before the first layer is rounded; then it does as two models side by side do."""
    model, rows, seen = model_of(family), random_rows(), []
    full = captured_inputs(model, rows)

    class Spy(Gptq):
        def solve(self, weight_OI: Any, rule: Any, statistics: Any) -> Any:
            seen.append(statistics.drift_II)
            return super().solve(weight_OI, rule, statistics)

    quantized(model, Spy(), rows, bits=2)
    x = captured_inputs(model, rows)
    assert not seen[0].any()
    sites = [len(group.sites) for group in model_groups(model)]
    torch.testing.assert_close(seen[sum(sites[:4])], (full - x).T @ x, rtol=1e-3, atol=1e-3)
    assert all(drift.any() for drift in seen[1:])


def captured_inputs(model: CausalLM, rows: CalibrationRows) -> torch.Tensor:
    """Of the attention of layer 1."""
    captured = []
    handle = model.get_submodule("model.layers.1.self_attn").register_forward_pre_hook(
        lambda module, arguments: captured.append(arguments[0])
    )
    logits(model, rows)
    handle.remove()
    return captured[0][rows.document_ids_RS >= 0]


def test_groups_of_a_layer_see_one_another() -> None:
    """down is solved with what the rounded gate and up give it."""
    model, rows = model_of("Qwen3"), random_rows()
    seen = []

    class Spy(Gptq):
        def solve(self, weight_OI: Any, rule: Any, statistics: Any) -> Any:
            seen.append(statistics.hessian_II.clone())
            return super().solve(weight_OI, rule, statistics)

    quantized(model, Spy(), rows, bits=2)
    captured = []
    handle = model.get_submodule("model.layers.0.mlp.down_proj").register_forward_pre_hook(
        lambda module, arguments: captured.append(arguments[0])
    )
    logits(model, rows)
    handle.remove()
    x = captured[0][rows.document_ids_RS >= 0]
    torch.testing.assert_close(seen[3], x.T @ x, rtol=1e-3, atol=1e-3)


def test_an_expert_is_solved_on_the_tokens_routed_to_it() -> None:
    model, rows = model_of("Glm4Moe"), random_rows(rows=40)
    layers = quantized(model, Gptq(), rows)
    records = {record.name: record for layer in layers for record in layer.records}
    config = model.config
    prefix = "model.layers.1.mlp.experts"
    tokens = [records[f"{prefix}.{e}.gate_proj"].tokens for e in range(config.num_experts)]
    assert sum(tokens) == config.num_experts_per_tok * (40 * 32 - 5)
    assert tokens == [records[f"{prefix}.{e}.down_proj"].tokens for e in range(config.num_experts)]
    for e, count in enumerate(tokens):
        fell_back = records[f"{prefix}.{e}.gate_proj"].note != ""
        assert fell_back == (count < config.hidden_size)


def test_a_layer_whose_inputs_overflow_is_named() -> None:
    model, rows = model_of("Qwen3"), random_rows()
    with torch.no_grad():
        model.get_parameter("model.layers.1.input_layernorm.weight")[3] = 1e30
    with pytest.raises(
        UserError, match=r"model\.layers\.1\.self_attn\.q_proj: its inputs .* not finite"
    ):
        quantized(model, Gptq(), rows)
