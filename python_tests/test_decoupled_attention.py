"""The operator decoupled_attention against its plain-torch definition; compilation, registration, arguments."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from attention_cases import LAYOUTS, SHAPES, arguments, requires_ops
from op_cases import assert_same_bits, poisoned_memory, with_threads
from torch.utils.flop_counter import FlopCounterMode

from aicr_ext import _native
from aicr_ext.ops.decoupled_attention import decoupled_attention
from aicr_ext.ops.layout import preferred_layout
from aicr_ext.ops.reference import decoupled_attention_reference

DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)]

needs_device = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")


@pytest.fixture(autouse=True)
def _skip_without_device(request):
    device = request.node.callspec.params.get("device") if hasattr(request.node, "callspec") else None
    if device == "cuda" and not (torch.cuda.is_available() and _native.HAS_CUDA_OPS):
        pytest.skip("no CUDA device")


def assert_no_worse_than_eager(out, args):
    """At most twice the error of eager PyTorch in the same dtype, against float64, plus a few last bits."""
    exact = decoupled_attention_reference(*(a.double() for a in args))
    eager = decoupled_attention_reference(*args)
    scale = exact.abs().max().item() if exact.numel() else 0.0
    allowed = 2 * (eager.double() - exact).abs().max().item() if exact.numel() else 0.0
    error = (out.double() - exact).abs().max().item() if exact.numel() else 0.0
    assert error <= allowed + 4 * torch.finfo(out.dtype).eps * scale


@requires_ops
@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("taps", [3, 5, 7])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_matches_the_reference(shape, taps, dtype, layout, device):
    args = arguments(shape, taps, dtype, device, layout)
    out = decoupled_attention(*args)
    assert out.dtype == dtype
    assert out.shape == shape
    assert out.stride() == args[0].stride()
    assert_no_worse_than_eager(out, args)


@requires_ops
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("taps", [3, 5, 7])
def test_float64_on_the_cpu(taps, layout):
    args = arguments((2, 6, 19, 23), taps, torch.float64, layout=layout)
    torch.testing.assert_close(decoupled_attention(*args), decoupled_attention_reference(*args), rtol=1e-12, atol=1e-12)


@requires_ops
@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_float32_weights_with_low_precision_maps(dtype, device):
    args = arguments((2, 8, 20, 20), 5, dtype, device, weight_dtype=torch.float32)
    out = decoupled_attention(*args)
    assert out.dtype == dtype
    assert_no_worse_than_eager(out, args)


@requires_ops
@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("shape", [(0, 8, 4, 4), (2, 0, 4, 4), (2, 8, 0, 4), (2, 8, 4, 0)], ids=str)
def test_empty(shape, layout, device):
    assert decoupled_attention(*arguments(shape, device=device, layout=layout)).shape == shape


@requires_ops
@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("view", ["rows", "columns", "channels", "batch", "transposed", "expanded", "value"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_views(layout, view, device):
    """Inputs that are not dense give the right answer, and the layout of the tensor they are a view of."""
    attn, value, row, col = arguments((4, 8, 12, 14), device=device, layout=layout)
    cut = {
        "rows": lambda t: t[:, :, 2:9],
        "columns": lambda t: t[..., 1::2],
        "channels": lambda t: t[:, :5],
        "batch": lambda t: t[::2],
        "transposed": lambda t: t.transpose(2, 3),
        "expanded": lambda t: t[:1].expand(3, -1, -1, -1),
        "value": lambda t: t,
    }[view]
    attn = cut(attn)
    value = cut(value).contiguous() if view == "value" else cut(value)
    row, col = row[: attn.shape[1]], col[: attn.shape[1]]
    out = decoupled_attention(attn, value, row, col)
    assert_no_worse_than_eager(out, (attn, value, row, col))
    assert out.is_contiguous(memory_format=preferred_layout(attn))


@requires_ops
@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_element_is_written(layout, device):
    args = arguments((2, 24, 35, 33), device=device, layout=layout)
    with poisoned_memory():
        out = decoupled_attention(*args)
    assert out.isfinite().all()


@requires_ops
@pytest.mark.parametrize("device", DEVICES)
def test_not_a_number_spreads_as_far_as_the_taps_reach(device):
    attn, value, row, col = arguments((1, 2, 11, 13), 5, device=device, layout="channels_last")
    attn[0, 1, 5, 6] = float("nan")
    out = decoupled_attention(attn, value, row, col).isnan()
    expected = torch.zeros_like(out)
    expected[0, 1, 3:8, 4:9] = True
    assert torch.equal(out, expected)


@requires_ops
def test_gelu_over_its_whole_range():
    """A single tap turns the operator into GELU(GELU(x))."""
    x = torch.linspace(-12, 12, 100_001).view(1, 1, 1, -1)
    row = torch.tensor([0.0, 1.0, 0.0]).view(1, 1, 1, 3)
    out = decoupled_attention(x, torch.ones_like(x), row, row.view(1, 1, 3, 1))
    exact = F.gelu(F.gelu(x.double()))
    assert ((out - exact).abs() / x.abs().clamp_min(1e-3)).max() < 5e-7
    extremes = torch.tensor([-1e30, -100.0, 100.0, 1e30]).view(1, 1, 4, 1)
    out = decoupled_attention(extremes, torch.ones_like(extremes), row, torch.eye(3)[1].view(1, 1, 3, 1))
    assert out.flatten().tolist() == extremes.clamp_min(0).flatten().tolist()


@requires_ops
@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_two_runs_and_any_number_of_threads_give_the_same_bits(layout, device):
    args = arguments((2, 24, 70, 50), device=device, layout=layout)
    assert_same_bits(with_threads(lambda: decoupled_attention(*args)))


@requires_ops
@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_picture_does_not_depend_on_its_batch(layout):
    args = arguments((3, 20, 40, 30), layout=layout)
    together = decoupled_attention(*args)
    alone = [decoupled_attention(args[0][i : i + 1], args[1][i : i + 1], *args[2:]) for i in range(3)]
    assert torch.equal(together, torch.cat(alone))


# Compilation, registration


@requires_ops
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_opcheck(dtype, layout):
    args = [a.requires_grad_() for a in arguments((2, 3, 6, 7), 5, dtype, layout=layout)]
    torch.library.opcheck(torch.ops.aicr_ext.decoupled_attention.default, args)
    args = [a.detach() for a in args]
    torch.library.opcheck(torch.ops.aicr_ext.decoupled_attention_backward.default, (args[1], *args))


@requires_ops
@pytest.mark.parametrize("view", [lambda t: t, lambda t: t[:, :, 1:5], lambda t: t[:, :2]])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_fake_kernel_agrees_on_strides(layout, view):
    attn, value, row, col = arguments((2, 3, 6, 7), layout=layout)
    args = (view(attn), view(value), row[: view(attn).shape[1]], col[: view(attn).shape[1]])
    ops = torch.ops.aicr_ext
    torch.library.opcheck(ops.decoupled_attention.default, args, test_utils="test_faketensor")
    torch.library.opcheck(ops.decoupled_attention_backward.default, (args[1], *args), test_utils="test_faketensor")


@requires_ops
@pytest.mark.parametrize("dynamic", [False, True])
def test_compile(dynamic):
    def step(attn, value, row, col):
        return (decoupled_attention(attn * 2, value, row, col) + 1).sum()

    compiled = torch.compile(step, fullgraph=True, backend="aot_eager", dynamic=dynamic)
    for size in (6, 9):
        ours = [a.requires_grad_() for a in arguments((1, 3, size, 7), layout="channels_last")]
        eager = [a.detach().clone().requires_grad_() for a in ours]
        compiled(*ours).backward()
        step(*eager).backward()
        for a, b in zip(ours, eager, strict=True):
            torch.testing.assert_close(a.grad, b.grad)


@requires_ops
def test_autocast_leaves_it_alone():
    attn, value, row, col = arguments((1, 4, 8, 8))
    expected, defined = (f(attn, value, row, col) for f in (decoupled_attention, decoupled_attention_reference))
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(decoupled_attention(attn, value, row, col), expected)
        assert torch.equal(decoupled_attention_reference(attn, value, row, col), defined)
        assert decoupled_attention(attn.bfloat16(), value.bfloat16(), row, col).dtype == torch.bfloat16


@requires_ops
def test_flops_are_those_of_the_two_convolutions():
    args = arguments((2, 3, 8, 9), 5)
    with FlopCounterMode(display=False) as ours:
        decoupled_attention(*args)
    assert ours.get_total_flops() == 2 * 2 * 5 * 2 * 3 * 8 * 9
    with FlopCounterMode(display=False) as ours:
        torch.ops.aicr_ext.decoupled_attention_backward(args[1], *args)
    assert ours.get_total_flops() == 3 * 2 * 2 * 5 * 2 * 3 * 8 * 9


@pytest.mark.gpu
@needs_device
def test_cuda_graph():
    args = arguments((1, 64, 32, 48), device="cuda", layout="channels_last")
    expected = decoupled_attention(*args)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        out = decoupled_attention(*args)
    graph.replay()
    torch.cuda.synchronize()
    assert torch.equal(out, expected)


# Arguments


def bad(**change):
    names = ("attn", "value", "weight_row", "weight_col")
    return [change.get(name, value) for name, value in zip(names, arguments((2, 4, 6, 7)), strict=True)]


@requires_ops
@pytest.mark.parametrize(
    "args, message",
    [
        (bad(attn=torch.zeros(4, 6, 7)), r"attn must be \(B, C, H, W\), got 3"),
        (bad(value=torch.zeros(2, 4, 6, 8)), "value must have the shape of attn"),
        (bad(value=torch.zeros(4, 6, 7)), "value must have the shape of attn"),
        (bad(value=torch.zeros(2, 4, 6, 7).half()), "value must be of the dtype of attn, Float, got Half"),
        (bad(weight_row=torch.zeros(3, 1, 1, 5)), r"weight_row must have the shape \(4, 1, 1, K\)"),
        (bad(weight_row=torch.zeros(4, 5)), r"weight_row must have the shape \(4, 1, 1, K\), got 2"),
        (bad(weight_col=torch.zeros(4, 1, 1, 5)), r"weight_col must have the shape \(4, 1, K, 1\)"),
        (bad(weight_row=torch.zeros(4, 1, 1, 4)), "weight_row must have 3, 5 or 7 taps, got 4"),
        (bad(weight_row=torch.zeros(4, 1, 1, 9)), "weight_row must have 3, 5 or 7 taps, got 9"),
        (bad(weight_col=torch.zeros(4, 1, 3, 1)), "one number of taps, got 5 and 3"),
        (
            bad(weight_col=torch.zeros(4, 1, 5, 1).double()),
            "weight_col must be float32 or of the dtype of attn",
        ),
    ],
)
def test_bad_arguments(args, message):
    with pytest.raises(RuntimeError, match=message):
        decoupled_attention(*args)


@requires_ops
def test_integers_are_refused():
    args = [a.int() for a in arguments((1, 2, 3, 3))]
    with pytest.raises(RuntimeError, match="decoupled_attention"):
        decoupled_attention(*args)


def test_without_native_operators_the_reference_runs(monkeypatch):
    monkeypatch.setattr(_native, "HAS_OPS", False)
    args = arguments((1, 4, 8, 8))
    assert torch.equal(decoupled_attention(*args), decoupled_attention_reference(*args))
