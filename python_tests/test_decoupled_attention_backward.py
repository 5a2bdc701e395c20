"""The derivative of decoupled_attention against its plain-torch definition, and through autograd."""

from __future__ import annotations

import sys

import cuda_cases
import pytest
import torch
import torch.nn.functional as F
from attention_cases import LAYOUTS, SHAPES, arguments, requires_ops
from emulation import SEEDS, emulated, seeded
from op_cases import assert_same_bits, poisoned_memory, with_threads

from aicr_ext import _native
from aicr_ext.ops.decoupled_attention import decoupled_attention
from aicr_ext.ops.layout import preferred_layout
from aicr_ext.ops.reference import decoupled_attention_backward_reference, decoupled_attention_reference

#: Where the kernels run: that of the CPU; those of CUDA on the host and on a GPU.
everywhere = pytest.mark.parametrize("place", ["cpu", *cuda_cases.PLACES])
on_cuda = pytest.mark.parametrize("place", cuda_cases.PLACES)
needs_gpu = pytest.mark.skipif(not (torch.cuda.is_available() and _native.HAS_CUDA_OPS), reason="no CUDA device")


def device_of(place):
    return "cuda" if place == "cuda" else "cpu"


def backward(place, *args):
    if place == "emulated":
        return emulated("decoupled_attention_backward")(*args)
    return torch.ops.aicr_ext.decoupled_attention_backward(*args)


def check_backward(place, grad, *args):
    """Each gradient at most twice as wrong as that of eager PyTorch in the same dtype, plus a few last bits."""
    out = backward(place, grad, *args)
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
@everywhere
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("taps", [3, 5, 7])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_backward_matches_the_reference(shape, taps, dtype, layout, place):
    args = arguments(shape, taps, dtype, device_of(place), layout)
    out = check_backward(place, gradient_like(args[0]), *args)
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
@everywhere
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_backward_with_float32_weights(dtype, place):
    args = arguments((2, 8, 20, 20), 5, dtype, device_of(place), weight_dtype=torch.float32)
    check_backward(place, gradient_like(args[0]), *args)


@requires_ops
@everywhere
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("shape", [(0, 8, 4, 4), (2, 0, 4, 4), (2, 8, 0, 4), (2, 8, 4, 0)], ids=str)
def test_backward_of_nothing(shape, layout, place):
    args = arguments(shape, device=device_of(place), layout=layout)
    out = backward(place, args[0], *args)
    assert [g.shape for g in out] == [a.shape for a in args]
    assert not any(g.any() for g in out)


@requires_ops
@everywhere
@pytest.mark.parametrize("view", [lambda t: t[:, :, 2:9], lambda t: t[..., 1::2], lambda t: t.transpose(2, 3)])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_backward_of_views(layout, view, place):
    attn, value, row, col = arguments((3, 8, 12, 14), device=device_of(place), layout=layout)
    grad = torch.ones((), device=attn.device).expand(view(attn).shape)
    out = check_backward(place, grad, view(attn), view(value).clone(), row, col)
    assert out[0].is_contiguous(memory_format=preferred_layout(view(attn)))


@requires_ops
@everywhere
@pytest.mark.parametrize("layout", LAYOUTS)
def test_backward_writes_every_element(layout, place):
    args = arguments((2, 24, 35, 33), device=device_of(place), layout=layout)
    with poisoned_memory():
        out = backward(place, args[1], *args)
    assert all(g.isfinite().all() for g in out)


@requires_ops
@everywhere
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("column", [0, 1, 13, 27])
def test_not_a_number_spreads_as_far_as_the_taps_reach(column, layout, place):
    """At the edge of the picture, and of strips."""
    args = arguments((1, 2, 11, 30), 5, device=device_of(place), layout=layout)
    args[0][0, 1, 5, column] = float("nan")
    grad_attn, grad_value, *_ = backward(place, args[1], *args)
    expected = torch.zeros(2, 1, 2, 11, 30, dtype=torch.bool, device=args[0].device)
    expected[0, 0, 1, 5, max(column - 4, 0) : column + 5] = True
    expected[1, 0, 1, 3:8, max(column - 2, 0) : column + 3] = True
    assert torch.equal(torch.stack([grad_attn, grad_value]).isnan(), expected)


@requires_ops
@everywhere
def test_slope_of_gelu_over_its_whole_range(place):
    """A single tap and a value of one: the gradient is GELU'(GELU(x)) GELU'(x)."""
    x = torch.linspace(-12, 12, 100_001, device=device_of(place)).view(1, 1, 1, -1)
    row = torch.tensor([0.0, 1.0, 0.0]).view(1, 1, 1, 3).to(x)
    ones = torch.ones_like(x)
    out = backward(place, ones, x, ones, row, row.view(1, 1, 3, 1))[0]
    wide = x.double().requires_grad_()
    F.gelu(F.gelu(wide)).sum().backward()
    assert (out - wide.grad).abs().max() < 5e-7
    extremes = torch.tensor([-1e30, -100.0, 100.0, 1e30]).view(1, 1, 4, 1).to(x)
    ones = torch.ones_like(extremes)
    out = backward(place, ones, extremes, ones, row, row.view(1, 1, 3, 1))[0]
    assert out.flatten().tolist() == [0.0, 0.0, 1.0, 1.0]


@requires_ops
@pytest.mark.parametrize("layout", LAYOUTS)
def test_backward_gives_the_same_bits_for_any_number_of_threads(layout):
    args = arguments((2, 24, 70, 50), layout=layout)
    assert_same_bits(with_threads(lambda: torch.ops.aicr_ext.decoupled_attention_backward(args[1], *args)))


@requires_ops
@on_cuda
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("taps", [3, 5, 7])
def test_two_runs_in_any_order_of_threads_give_the_same_bits(taps, layout, place):
    args = arguments((2, 20, 19, 34), taps, device=device_of(place), layout=layout)
    results = [backward(place, args[1], *args) for _ in range(2)]
    for seed in SEEDS if place == "emulated" else ():
        with seeded(seed):
            results.append(backward(place, args[1], *args))
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


@requires_ops
@everywhere
@pytest.mark.parametrize("layout", LAYOUTS)
def test_many_pictures(layout, place):
    """So many that CUDA takes longer blocks, lest it have too many sums to add up; one alone has the same bits."""
    args = arguments((400, 1, 40, 3), device=device_of(place), layout=layout)
    out = check_backward(place, gradient_like(args[0]), *args)
    alone = backward(place, gradient_like(args[0])[:1], args[0][:1], args[1][:1], *args[2:])
    assert all(torch.equal(a[:1], b) for a, b in zip(out[:2], alone, strict=False))


@pytest.mark.gpu
@needs_gpu
def test_cuda_graph():
    args = arguments((1, 64, 32, 48), device="cuda", layout="channels_last")
    expected = backward("cuda", args[1], *args)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        out = backward("cuda", args[1], *args)
    for t in out:
        t.fill_(float("nan"))
    graph.replay()
    assert all(torch.equal(a, b) for a, b in zip(out, expected, strict=True))


@requires_ops
def test_plain_torch_gradients(monkeypatch):
    """The formula that stands in for a missing kernel."""
    monkeypatch.setattr(sys.modules["aicr_ext.ops.decoupled_attention"], "has_kernel", lambda *_, **__: False)
    args = [a.requires_grad_() for a in arguments((1, 2, 4, 5), 3, torch.float64)]
    assert torch.autograd.gradcheck(torch.ops.aicr_ext.decoupled_attention, args)


@requires_ops
@everywhere
@pytest.mark.parametrize(
    "grad, message",
    [
        (torch.zeros(2, 4, 6, 8), "grad must have the shape of attn"),
        (torch.zeros(2, 4, 6, 7).half(), "grad must be of the dtype of attn, Float, got Half"),
    ],
)
def test_bad_gradients(grad, message, place):
    with pytest.raises(RuntimeError, match=message):
        backward(place, grad.to(device_of(place)), *arguments((2, 4, 6, 7), device=device_of(place)))


@requires_ops
@on_cuda
def test_float64_is_refused(place):
    args = arguments((1, 2, 3, 3), dtype=torch.float64, device=device_of(place))
    with pytest.raises(RuntimeError, match="_backward: attn must be float32, bfloat16 or float16 on CUDA, got Double"):
        backward(place, args[1], *args)


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
@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=[pytest.mark.gpu, needs_gpu])])
@pytest.mark.parametrize("needed", range(4))
def test_gradient_of_one_argument(needed, device):
    """Only what is asked for is computed, and it is what eager PyTorch computes."""
    ours, eager = arguments((2, 4, 6, 7), device=device), arguments((2, 4, 6, 7), device=device)
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
