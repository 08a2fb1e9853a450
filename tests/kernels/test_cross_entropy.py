"""The loss taken chunk by chunk against the one that makes all logits."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import Tensor

from mengya.batch import IGNORE_INDEX
from mengya.kernels import cross_entropy as module
from mengya.kernels.cross_entropy import linear_nll
from mengya.losses.token_nll import log_partition, token_nll
from tests.helpers.triton_interpreter import Interpret

V, H = 101, 16


def unchunked(hidden: Tensor, weight: Tensor, labels: Tensor, z_loss: float = 0.0) -> Tensor:
    logits = hidden @ weight.T
    nll = token_nll(logits, labels).sum()
    return torch.stack([nll + z_loss * log_partition(logits, labels).square().sum(), nll])


def run(
    loss: Callable[..., Tensor], hidden: Tensor, weight: Tensor, labels: Tensor, z_loss: float = 0
) -> list[Tensor]:
    """Sums / 7, and the first one's gradients for both inputs."""
    hidden, weight = hidden.clone().requires_grad_(), weight.clone().requires_grad_()
    sums = loss(hidden, weight, labels, z_loss) / 7
    sums[0].backward()
    assert hidden.grad is not None and weight.grad is not None
    return [sums.detach(), hidden.grad, weight.grad]


@pytest.mark.parametrize("z_loss", [0.0, 0.01])
@pytest.mark.parametrize("rows", [1, 130, 256, 300], ids=lambda r: f"{r} positions")
def test_chunks_give_the_loss_and_gradients_of_full_logits(
    rows: int, z_loss: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "CHUNK_BYTES", 128 * 128 * 4)  # 128 positions a chunk
    generator = torch.Generator().manual_seed(rows)
    hidden = torch.randn(1, rows, H, generator=generator)
    weight = torch.randn(V, H, generator=generator)
    labels = torch.randint(V, (1, rows), generator=generator)
    labels[torch.rand(1, rows, generator=generator) < 0.3] = IGNORE_INDEX
    inputs = (hidden, weight, labels, z_loss)
    ours, right = run(linear_nll, *inputs), run(unchunked, *inputs)
    for a, b in zip(ours, right, strict=True):
        torch.testing.assert_close(a, b, atol=2e-6, rtol=2e-6)


def test_nothing_labelled_is_zero_and_not_nan() -> None:
    labels = torch.full((2, 5), IGNORE_INDEX)
    value, d_hidden, d_weight = run(linear_nll, torch.randn(2, 5, H), torch.randn(V, H), labels)
    assert not value.any() and not d_hidden.any() and not d_weight.any()


def test_only_what_is_trained_gets_a_gradient() -> None:
    hidden, weight = torch.randn(1, 9, H, requires_grad=True), torch.randn(V, H)
    linear_nll(hidden, weight, torch.randint(V, (1, 9)))[0].backward()
    assert hidden.grad is not None and weight.grad is None


def test_a_second_backward_pass_is_refused() -> None:
    hidden = torch.randn(1, 9, H, requires_grad=True)
    value = linear_nll(hidden, torch.randn(V, H), torch.randint(V, (1, 9)))[0]
    value.backward(retain_graph=True)
    with pytest.raises(AttributeError):
        value.backward()


def check_kernel(device: str) -> None:
    from mengya.kernels.cross_entropy_triton import fused_chunk_nll

    generator = torch.Generator().manual_seed(0)
    for vocab_size, width in ((101, 128), (1500, 1536), (128, 128), (17_000, 17_024)):
        labels = torch.randint(vocab_size, (9,), generator=generator).to(device)
        labels[2], labels[8] = IGNORE_INDEX, vocab_size - 1
        for dtype, tolerance, spread in (
            (torch.float32, 1e-5, 3),
            (torch.bfloat16, 8e-3, 3),
            (torch.bfloat16, 2e-2, 60),  # the base is too low in most rows, in some more than once
            (torch.float16, 1e-3, 3),
        ):
            logits = (spread * torch.randn(9, width, generator=generator)).to(device, dtype)
            right_sums, right_rows, ones = module.chunk_nll(logits, labels, vocab_size, 0.01)
            assert right_rows.dtype == dtype and (ones == 1).all()
            sums, rows, scale = fused_chunk_nll(logits, labels, vocab_size, 0.01)
            assert rows is logits and scale.dtype == torch.float32
            torch.testing.assert_close(sums, right_sums, atol=1e-4, rtol=1e-5)
            gradient = rows.float() * scale[:, None]
            torch.testing.assert_close(gradient, right_rows.float(), atol=tolerance, rtol=tolerance)

    from mengya.kernels.cross_entropy_triton import scale_rows

    for dtype in (torch.float32, torch.bfloat16):
        x, scale = torch.randn(9, 1500, generator=generator), torch.rand(9, generator=generator)
        x, scale = x.to(device, dtype), scale.to(device)
        right = (x.float() * scale[:, None]).to(dtype)
        scale_rows(x, scale, x)  # in place
        torch.testing.assert_close(x, right, atol=0, rtol=1e-2 if dtype == torch.bfloat16 else 1e-6)


def test_the_kernels_equal_their_twins_in_the_interpreter(interpret: Interpret) -> None:
    interpret(partial(check_kernel, "cpu"))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_the_kernels_equal_their_twins_on_the_gpu() -> None:
    check_kernel("cuda")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_bfloat16_on_the_gpu_is_as_near_to_fp32_as_full_logits_are() -> None:
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(1, 20_000, 64, generator=generator).cuda()
    weight = torch.randn(6_401, 64, generator=generator).cuda() * 0.1
    labels = torch.randint(6_401, (1, 20_000), generator=generator).cuda()
    exact = run(unchunked, hidden, weight, labels)
    half = hidden.bfloat16()
    ours = run(linear_nll, half, weight, labels)
    usual = run(unchunked, half, weight.bfloat16(), labels)
    assert ours[2].dtype == torch.float32
    for a, b, right in zip(ours, usual, exact, strict=True):
        error, other = (a.float() - right).norm(), (b.float() - right).norm()
        assert error <= 1.1 * other + 1e-4 * right.norm()
