"""On a GPU: the kernels that the CPU has not, against the ones that it has."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F

from mengya.batch import IGNORE_INDEX, Batch
from mengya.generation.engine import generate
from mengya.generation.sampling import SamplingParams
from mengya.kernels.attention.dense import DensePattern
from mengya.kernels.attention.document import DocumentRanges
from mengya.models.adapters.lora import LoraConfig, add_lora, merge_lora
from mengya.models.attention_mask import plan_attention
from mengya.models.causal_lm import CausalLM
from mengya.models.extensions import training_pattern
from tests.helpers.random_model import random_model, tiny_config

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]

S = 128
DOCUMENTS = (
    (50, 1, 60),
    (128,),
    (3,),
    (),
)  # lengths in each row; padding fills it, the last is all padding


def batch_of(documents: tuple[tuple[int, ...], ...], vocab_size: int, seed: int = 3) -> Batch:
    """Packed rows on the GPU, cu_seqlens filled up to four documents a row."""
    positions, numbers, ends = [], [], [0]
    for row, lengths in enumerate(documents):
        pieces = [*lengths, S - sum(lengths)] if sum(lengths) < S else [*lengths]
        positions.append([p for n in pieces for p in range(n)])
        numbers.append(
            [d if d < len(lengths) else -1 for d, n in enumerate(pieces) for _ in range(n)]
        )
        ends += (torch.tensor(pieces).cumsum(0) + row * S).tolist()
    ends += [len(documents) * S] * (4 * len(documents) + 1 - len(ends))
    ids = torch.randint(
        vocab_size, (len(documents), S), generator=torch.Generator().manual_seed(seed)
    )
    document_ids = torch.tensor(numbers)
    labels = ids.roll(-1, 1).masked_fill(document_ids < 0, IGNORE_INDEX)
    return Batch(
        ids, labels, torch.tensor(positions), document_ids, torch.tensor(ends, dtype=torch.int32)
    ).to("cuda")


def run(model: CausalLM, batch: Batch, varlen: bool, autocast: bool) -> dict[str, torch.Tensor]:
    """Logits, balancing loss and every gradient of one step."""
    inputs: dict[str, Any] = batch.model_inputs()
    if not varlen:
        inputs["cu_seqlens"] = None
    model.zero_grad(set_to_none=True)
    with torch.autocast("cuda", torch.bfloat16, enabled=autocast):
        output = model(**inputs)
    loss = F.cross_entropy(output.head_output.float().flatten(0, 1), batch.labels.flatten())
    results = {"logits": output.head_output.detach().float()}
    if output.aux_loss_B is not None:
        loss = loss + output.aux_loss_B.sum()
        results["aux_loss"] = output.aux_loss_B.detach()
    loss.backward()
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad is not None, name
            results[name] = parameter.grad.float().clone()
    return results


def run_all(model: CausalLM, batches: list[Batch], **how: bool) -> dict[str, torch.Tensor]:
    """`run` of each batch, stacked."""
    results = [run(model, batch, **how) for batch in batches]
    return {name: torch.stack([result[name] for result in results]) for name in results[0]}


def assert_as_near(
    ours: dict[str, torch.Tensor], other: dict[str, torch.Tensor], exact: dict[str, torch.Tensor]
) -> None:
    """Both half-precision results are as far from the fp32 one, whatever the quantity's size."""
    for name, right in exact.items():
        size = right.norm().item() + 1e-6
        error, usual = (ours[name] - right).norm().item(), (other[name] - right).norm().item()
        assert error <= max(2 * usual, 0.01 * size), (
            f"{name}: {error / size:.4f} of {usual / size:.4f}"
        )
        assert error < 0.1 * size, f"{name}: {error / size:.4f} relative error"


@pytest.fixture
def gpu_model(family: str) -> CausalLM:
    torch.set_float32_matmul_precision("highest")
    return random_model(tiny_config(family, max_position_embeddings=256)).cuda().train()


def test_half_precision_takes_the_kernel_of_boundaries() -> None:
    config, batch = tiny_config("Qwen3"), batch_of(DOCUMENTS, 101)
    arguments = (batch.input_ids, batch.position_ids, batch.document_ids, batch.cu_seqlens)
    for dtype, varlen in ((torch.bfloat16, True), (torch.float16, True), (torch.float32, False)):
        plan = plan_attention(config, *arguments, dtype)
        # Heads of 16 columns go to our kernels.
        assert type(plan.full) is (DocumentRanges if varlen else DensePattern)


@pytest.mark.parametrize(
    ("family", "compiled"),
    [("Llama", False), ("Qwen3", False), ("Qwen3", True), ("Qwen3Moe", False), ("Qwen3Moe", True)],
)
def test_varlen_equals_the_mask_forward_and_backward(gpu_model: CausalLM, compiled: bool) -> None:
    batch = batch_of(DOCUMENTS, 101)
    exact = run(gpu_model, batch, varlen=False, autocast=False)
    masked = run(gpu_model, batch, varlen=False, autocast=True)
    if compiled:
        torch._dynamo.reset()
        gpu_model.compile_layers()
    varlen = run(gpu_model, batch, varlen=True, autocast=True)
    assert all(t.isfinite().all() for t in varlen.values())
    if gpu_model.config.num_experts:
        # Rounding sends a few tokens to other experts, so only sums over tokens are comparable.
        for name in ("aux_loss", "model.norm.weight"):
            torch.testing.assert_close(varlen[name], exact[name], atol=0.05, rtol=0.15)
        return
    assert_as_near(varlen, masked, exact)


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize(
    ("family", "sliding_window", "ratio"),
    [("Qwen3", 20, None), ("Qwen3", None, 0.25), ("DeepseekV3 dense", None, 0.25)],
)
def test_varlen_windows_and_shifted_groups_equal_their_masks(
    family: str, sliding_window: int | None, ratio: float | None, compiled: bool
) -> None:
    widths: dict[str, Any] = {}
    if family.startswith("Deepseek"):
        widths = {"qk_nope_head_dim": 10, "qk_rope_head_dim": 6, "v_head_dim": 16}
    model = (
        random_model(tiny_config(family, sliding_window=sliding_window, **widths)).cuda().train()
    )
    model.training_pattern = training_pattern(model.config, ratio)
    batch = batch_of(DOCUMENTS, 101)
    exact = run(model, batch, varlen=False, autocast=False)
    masked = run(model, batch, varlen=False, autocast=True)
    if compiled:
        torch._dynamo.reset()
        model.compile(fullgraph=True)
    assert_as_near(run(model, batch, varlen=True, autocast=True), masked, exact)
    model.training_pattern = None
    if ratio:
        full = run(model, batch, varlen=True, autocast=True)
        assert (full["logits"] - exact["logits"]).norm() > 0.2 * exact["logits"].norm()


@pytest.mark.parametrize("compiled", [False, True])
def test_clex_learns_through_the_varlen_kernel(compiled: bool) -> None:
    clex = {"rope_type": "clex", "factor": 4.0, "original_max_position_embeddings": 32}
    model = random_model(
        tiny_config("Qwen3", rope_parameters=clex, max_position_embeddings=128)
    ).cuda()
    model.train()
    with torch.no_grad():
        model.get_parameter("model.clex.down_proj").mul_(0.2)
    # As long as the factor reaches: nothing is drawn. Several texts: the gradient of the scale is a small
    # difference of large sums, and of one text rounding moves it by anything from 0.1 % to 10 %.
    batches = [batch_of(((128,),) * 2, 101, seed) for seed in range(8)]
    exact = run_all(model, batches, varlen=False, autocast=False)
    masked = run_all(model, batches, varlen=False, autocast=True)
    if compiled:
        torch._dynamo.reset()
        model.compile_layers()
    found = run_all(model, batches, varlen=True, autocast=True)
    assert found["model.clex.down_proj"].abs().max() > 0
    assert_as_near(found, masked, exact)


@pytest.mark.parametrize("family", ["Qwen3", "Qwen3Moe"])
def test_documents_do_not_see_each_other(gpu_model: CausalLM) -> None:
    gpu_model.eval()
    batch = batch_of(DOCUMENTS, 101)
    with torch.no_grad(), torch.autocast("cuda", torch.bfloat16):
        before = gpu_model(**batch.model_inputs()).head_output
        batch.input_ids[0, :50] = 1
        after = gpu_model(**batch.model_inputs()).head_output
    assert not torch.equal(after[0, :50], before[0, :50])
    torch.testing.assert_close(after[0, 50:111], before[0, 50:111], atol=2e-2, rtol=2e-2)


@pytest.mark.parametrize("family", ["Qwen3", "Qwen3Moe"])
def test_other_batches_need_no_other_graphs(gpu_model: CausalLM) -> None:
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    gpu_model.compile_layers()
    run(gpu_model, batch_of(DOCUMENTS, 101), varlen=True, autocast=True)
    with torch._dynamo.config.patch(error_on_recompile=True):  # the error says why
        for documents in (DOCUMENTS[::-1], ((128,),) * 4):
            run(gpu_model, batch_of(documents, 101), varlen=True, autocast=True)
    # The first layer, the others, the last norm, however many documents a batch holds.
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == 3


@pytest.mark.parametrize("family", ["Qwen3Moe", "DeepseekV3"])
def test_layers_keep_the_dtype_of_the_stream_under_autocast(gpu_model: CausalLM) -> None:
    dtypes = []
    for layer in gpu_model.model.layers:
        layer.register_forward_hook(
            lambda _, __, output: dtypes.extend(o.dtype for o in output[:2])
        )
    run(gpu_model, batch_of(DOCUMENTS, 101), varlen=True, autocast=True)
    assert dtypes == [torch.bfloat16] * 4


@pytest.mark.parametrize("family", ["Qwen3", "Qwen3Moe"])
def test_gradient_checkpointing_changes_no_gradient(gpu_model: CausalLM) -> None:
    batch = batch_of(DOCUMENTS, 101)
    plain = run(gpu_model, batch, varlen=True, autocast=True)
    gpu_model.gradient_checkpointing = True
    again = run(gpu_model, batch, varlen=True, autocast=True)
    for name in plain:
        torch.testing.assert_close(again[name], plain[name], atol=1e-3, rtol=1e-2)


def test_grouped_experts_equal_the_loop_in_bfloat16() -> None:
    """Same routing for both: the inputs are given, only the products differ."""
    from mengya.kernels.experts.reference import grouped_product, looped_product

    ends = torch.tensor([30, 30, 100, 128], dtype=torch.int32, device="cuda")
    x = torch.randn(128, 48, device="cuda", dtype=torch.bfloat16)
    weight = torch.randn(4, 24, 48, device="cuda", dtype=torch.bfloat16)
    results = []
    for multiply in (grouped_product, looped_product):
        a, w = x.clone().requires_grad_(), weight.clone().requires_grad_()
        out = multiply(a, w, ends)
        (out * torch.linspace(-1, 1, 24, device="cuda", dtype=torch.bfloat16)).sum().backward()
        assert a.grad is not None and w.grad is not None
        results.append((out, a.grad, w.grad))
    for grouped, looped in zip(*results, strict=True):
        torch.testing.assert_close(grouped.float(), looped.float(), atol=0.1, rtol=0.02)


@pytest.mark.parametrize("vocab_size", [101, 256])
def test_the_padded_vocabulary_changes_nothing(vocab_size: int) -> None:
    model = random_model(tiny_config("Qwen3", vocab_size=vocab_size)).cuda()
    batch = batch_of(DOCUMENTS, vocab_size)
    padded = run(model, batch, varlen=False, autocast=False)
    model.pad_vocabulary = False
    plain = run(model, batch, varlen=False, autocast=False)
    assert padded["logits"].shape[-1] == vocab_size
    for name in plain:
        torch.testing.assert_close(padded[name], plain[name], atol=1e-4, rtol=1e-3)


def test_decoding_on_the_gpu_says_what_the_cpu_says(family: str) -> None:
    prompts = [[5, 6, 7, 8, 9], [42], [100, 3, 50]]
    params = SamplingParams(max_new_tokens=16, temperature=0)
    model = random_model(tiny_config(family))
    expected = generate(model, prompts, params, [])
    model.cuda()
    model.compile_layers()  # generation must not compile for every length
    assert generate(model, prompts, params, []) == expected
    half = generate(model.to(torch.bfloat16), prompts, params, [])
    assert [len(row) for row in half] == [16] * 3


@pytest.mark.parametrize("family", ["Qwen3", "Qwen3Moe"])
def test_lora_trains_and_merges_under_autocast_and_compile(gpu_model: CausalLM) -> None:
    batch = batch_of(DOCUMENTS, 101)
    add_lora(gpu_model, LoraConfig(rank=4))
    torch._dynamo.reset()
    gpu_model.compile_layers()
    gradients = run(gpu_model, batch, varlen=True, autocast=True)
    assert len(gradients) > 4 and all(t.isfinite().all() for t in gradients.values())
    merged = merge_lora(gpu_model).eval()
    assert merged.decode(batch.input_ids, None).isfinite().all()
