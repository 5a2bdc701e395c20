"""The derivative of decoupled_attention against its plain-torch definition, and through autograd."""

from __future__ import annotations

import sys

import pytest
import torch
import torch.nn.functional as F
from attention_cases import LAYOUTS, SHAPES, arguments, requires_ops
from op_cases import poisoned_memory

from aicr_ext.ops.decoupled_attention import decoupled_attention
from aicr_ext.ops.layout import preferred_layout
from aicr_ext.ops.reference import decoupled_attention_backward_reference, decoupled_attention_reference


def check_backward(grad, *args):
    """Each gradient at most twice as wrong as that of eager PyTorch in the same dtype, plus a few last bits."""
    out = torch.ops.aicr_ext.decoupled_attention_backward(grad, *args)
    eager = decoupled_attention_backward_reference(grad, *args)
    exact = decoupled_attention_backward_reference(grad.double(), *(a.double() for a in args))
    for ours, theirs, true in zip(out, eager, exact, strict=True):
        assert ours.shape == true.shape
        if true.numel():
            allowed = 2 * (theirs.double() - true).abs().max().item()
            scale = true.abs().max().item()
            assert (ours.double() - true).abs().max().item() <= allowed + 4 * torch.finfo(ours.dtype).eps * scale
    return out


def gradient_like(attn):
    return (
        torch.randn(attn.shape, generator=torch.Generator().manual_seed(1))
        .to(attn)
        .contiguous(memory_format=preferred_layout(attn))
    )


@requires_ops
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("taps", [3, 5, 7])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_backward_matches_the_reference(shape, taps, dtype, layout):
    args = arguments(shape, taps, dtype, layout=layout)
    out = check_backward(gradient_like(args[0]), *args)
    assert [g.dtype for g in out] == [dtype, dtype, torch.float32, torch.float32]
    assert out[0].stride() == out[1].stride() == args[0].stride()


@requires_ops
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("taps", [3, 5, 7])
def test_backward_in_float64(taps, layout):
    args = arguments((2, 6, 19, 23), taps, torch.float64, layout=layout)
    grad = gradient_like(args[0])
    ours = torch.ops.aicr_ext.decoupled_attention_backward(grad, *args)
    torch.testing.assert_close(ours, decoupled_attention_backward_reference(grad, *args), rtol=1e-11, atol=1e-11)


@requires_ops
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_backward_with_float32_weights(dtype):
    args = arguments((2, 8, 20, 20), 5, dtype, weight_dtype=torch.float32)
    check_backward(gradient_like(args[0]), *args)


@requires_ops
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("shape", [(0, 8, 4, 4), (2, 0, 4, 4), (2, 8, 0, 4), (2, 8, 4, 0)], ids=str)
def test_backward_of_nothing(shape, layout):
    args = arguments(shape, layout=layout)
    out = torch.ops.aicr_ext.decoupled_attention_backward(args[0], *args)
    assert [g.shape for g in out] == [a.shape for a in args]
    assert not any(g.any() for g in out)


@requires_ops
@pytest.mark.parametrize("view", [lambda t: t[:, :, 2:9], lambda t: t[..., 1::2], lambda t: t.transpose(2, 3)])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_backward_of_views(layout, view):
    attn, value, row, col = arguments((3, 8, 12, 14), layout=layout)
    grad = torch.ones(()).expand(view(attn).shape)
    out = check_backward(grad, view(attn), view(value).clone(), row, col)
    assert out[0].is_contiguous(memory_format=preferred_layout(view(attn)))


@requires_ops
@pytest.mark.parametrize("layout", LAYOUTS)
def test_backward_writes_every_element(layout):
    args = arguments((2, 24, 35, 33), layout=layout)
    with poisoned_memory():
        out = torch.ops.aicr_ext.decoupled_attention_backward(args[1], *args)
    assert all(g.isfinite().all() for g in out)


@requires_ops
def test_slope_of_gelu_over_its_whole_range():
    """A single tap and a value of one: the gradient is GELU'(GELU(x)) GELU'(x)."""
    x = torch.linspace(-12, 12, 100_001).view(1, 1, 1, -1)
    row = torch.tensor([0.0, 1.0, 0.0]).view(1, 1, 1, 3)
    ones = torch.ones_like(x)
    out = torch.ops.aicr_ext.decoupled_attention_backward(ones, x, ones, row, row.view(1, 1, 3, 1))[0]
    wide = x.double().requires_grad_()
    F.gelu(F.gelu(wide)).sum().backward()
    assert (out - wide.grad).abs().max() < 5e-7
    extremes = torch.tensor([-1e30, -100.0, 100.0, 1e30]).view(1, 1, 4, 1)
    ones = torch.ones_like(extremes)
    out = torch.ops.aicr_ext.decoupled_attention_backward(ones, extremes, ones, row, row.view(1, 1, 3, 1))[0]
    assert out.flatten().tolist() == [0.0, 0.0, 1.0, 1.0]


@requires_ops
@pytest.mark.parametrize("layout", LAYOUTS)
def test_backward_gives_the_same_bits_for_any_number_of_threads(layout):
    args = arguments((2, 24, 70, 50), layout=layout)
    before = torch.get_num_threads()
    try:
        results = []
        for threads in (1, 1, 2, 3):
            torch.set_num_threads(threads)
            results.append(torch.ops.aicr_ext.decoupled_attention_backward(args[1], *args))
    finally:
        torch.set_num_threads(before)
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


@requires_ops
def test_plain_torch_gradients(monkeypatch):
    """The formula that stands in for a missing kernel."""
    monkeypatch.setattr(sys.modules["aicr_ext.ops.decoupled_attention"], "has_kernel", lambda *_, **__: False)
    args = [a.requires_grad_() for a in arguments((1, 2, 4, 5), 3, torch.float64)]
    assert torch.autograd.gradcheck(torch.ops.aicr_ext.decoupled_attention, args)


@requires_ops
@pytest.mark.parametrize(
    "grad, message",
    [
        (torch.zeros(2, 4, 6, 8), "grad must have the shape of attn"),
        (torch.zeros(2, 4, 6, 7).half(), "grad must be of the dtype of attn, Float, got Half"),
    ],
)
def test_bad_gradients(grad, message):
    with pytest.raises(RuntimeError, match=message):
        torch.ops.aicr_ext.decoupled_attention_backward(grad, *arguments((2, 4, 6, 7)))


# Through autograd


@requires_ops
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("taps", [3, 5])
def test_gradients(taps, layout):
    args = [a.requires_grad_() for a in arguments((2, 2, 4, 5), taps, torch.float64, layout=layout)]
    assert torch.autograd.gradcheck(decoupled_attention, args)


@requires_ops
def test_second_derivatives():
    args = [a.requires_grad_() for a in arguments((1, 2, 3, 3), 3, torch.float64)]
    assert torch.autograd.gradgradcheck(decoupled_attention, args)


@requires_ops
@pytest.mark.parametrize("needed", range(4))
def test_gradient_of_one_argument(needed):
    """Only what is asked for is computed, and it is what eager PyTorch computes."""
    ours, eager = arguments((2, 4, 6, 7)), arguments((2, 4, 6, 7))
    ours[needed].requires_grad_()
    eager[needed].requires_grad_()
    decoupled_attention(*ours).square().sum().backward()
    decoupled_attention_reference(*eager).square().sum().backward()
    torch.testing.assert_close(ours[needed].grad, eager[needed].grad, rtol=1e-4, atol=1e-3)
    assert [a.grad is not None for a in ours] == [i == needed for i in range(4)]


@requires_ops
def test_gradients_of_float32_weights_are_float32():
    args = [a.requires_grad_() for a in arguments((1, 4, 6, 6), 5, torch.bfloat16, weight_dtype=torch.float32)]
    decoupled_attention(*args).float().sum().backward()
    assert [a.grad.dtype for a in args] == [torch.bfloat16, torch.bfloat16, torch.float32, torch.float32]
