"""The operator gelu_gate and its backward against their plain-torch definitions."""

from __future__ import annotations

import sys

import pytest
import torch
from op_cases import LAYOUTS, VIEWS, assert_no_worse, assert_same_bits, requires_ops, with_threads

from aicr_ext import _native
from aicr_ext.ops import gelu_gate
from aicr_ext.ops.kernels import plain_torch
from aicr_ext.ops.layout import preferred_layout
from aicr_ext.ops.reference import gelu_gate_backward_reference, gelu_gate_reference

# Beyond one piece with rows that cross its end, sizes that divide nothing, single rows and columns.
SHAPES = [(1, 2, 1, 1), (3, 10, 9, 1), (2, 2, 33, 17), (3, 14, 37, 61), (2, 200, 16, 24)]


def arguments(shape, dtype=torch.float32, layout="nchw"):
    """x and the gradient of the result."""
    generator = torch.Generator().manual_seed(0)
    x = 3 * torch.randn(shape, generator=generator)
    grad = torch.randn(shape[0], shape[1] // 2, *shape[2:], generator=generator)
    return tuple(t.to(dtype).to(memory_format=LAYOUTS[layout]) for t in (x, grad))


def check(x, grad):
    out = gelu_gate(x)
    assert_no_worse(out, gelu_gate_reference(x), gelu_gate_reference(x.double()))
    grad_x = torch.ops.aicr_ext.gelu_gate_backward(grad, x)
    exact = gelu_gate_backward_reference(grad.double(), x.double())
    assert_no_worse(grad_x, gelu_gate_backward_reference(grad, x), exact)
    return out, grad_x


@requires_ops
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64], ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_matches_the_reference(shape, dtype, layout):
    x, grad = arguments(shape, dtype, layout)
    out, grad_x = check(x, grad)
    assert out.dtype == grad_x.dtype == dtype
    assert grad_x.stride() == x.stride()
    assert out.is_contiguous(memory_format=LAYOUTS[layout])


@requires_ops
@pytest.mark.parametrize("layout", LAYOUTS)
def test_each_element_is_rounded_once(layout):
    x, grad = arguments((2, 24, 9, 10), torch.bfloat16, layout)
    assert torch.equal(gelu_gate(x), gelu_gate(x.float()).bfloat16())
    backward = torch.ops.aicr_ext.gelu_gate_backward
    assert torch.equal(backward(grad, x), backward(grad.float(), x.float()).bfloat16())


@requires_ops
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("shape", [(0, 8, 4, 4), (2, 0, 4, 4), (2, 8, 0, 4), (2, 8, 4, 0)], ids=str)
def test_empty(shape, layout):
    x, grad = arguments(shape, layout=layout)
    assert gelu_gate(x).shape == grad.shape
    assert torch.ops.aicr_ext.gelu_gate_backward(grad, x).shape == shape


@requires_ops
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("view", VIEWS)
def test_views(view, layout):
    """Inputs that are not dense give the right answer, and the layout of the tensor they are a view of."""
    x, _ = arguments((3, 16, 12, 14), layout=layout)
    x = view(x)
    grad = torch.ones(()).expand(x.shape[0], x.shape[1] // 2, *x.shape[2:])
    out, grad_x = check(x, grad)
    assert out.is_contiguous(memory_format=preferred_layout(x))
    assert grad_x.is_contiguous(memory_format=preferred_layout(x))


@requires_ops
def test_two_runs_and_any_number_of_threads_give_the_same_bits():
    x, grad = arguments((2, 24, 70, 50), layout="channels_last")
    assert_same_bits(with_threads(lambda: check(x, grad)))


@requires_ops
@pytest.mark.parametrize("native", [True, False])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_gradients(layout, native, monkeypatch):
    """Of the kernels, and of the plain-torch backward formula that stands in for them."""
    if not native:
        module = sys.modules["aicr_ext.ops.gelu_gate"]  # the name in the package is the function's
        monkeypatch.setattr(module, "has_kernel", lambda *_, **__: False)
    x = arguments((2, 6, 2, 3), torch.float64, layout)[0].requires_grad_()
    assert torch.autograd.gradcheck(torch.ops.aicr_ext.gelu_gate, [x])
    assert torch.autograd.gradgradcheck(torch.ops.aicr_ext.gelu_gate, [x])


@requires_ops
@pytest.mark.parametrize("layout", LAYOUTS)
def test_opcheck(layout):
    x, grad = arguments((2, 6, 5, 7), layout=layout)
    ops = torch.ops.aicr_ext
    torch.library.opcheck(ops.gelu_gate_backward.default, (grad, x))
    cut = x[:, :, 1:3]
    torch.library.opcheck(ops.gelu_gate.default, (cut,), test_utils="test_faketensor")
    torch.library.opcheck(ops.gelu_gate.default, (x.requires_grad_(),))


@requires_ops
def test_compile():
    x, _ = arguments((1, 6, 5, 7), layout="channels_last")

    def step(x):
        return (gelu_gate(x * 2) + 1).square().sum()

    ours, eager = (x.clone().requires_grad_() for _ in range(2))
    torch.compile(step, fullgraph=True, backend="aot_eager", dynamic=True)(ours).backward()
    step(eager).backward()
    torch.testing.assert_close(ours.grad, eager.grad)


@requires_ops
@pytest.mark.parametrize(
    "x, message",
    [
        (torch.zeros(4, 6, 7), r"x must be \(B, 2C, H, W\), got 3"),
        (torch.zeros(1, 5, 6, 7), "x must have an even number of channels, got 5"),
        (torch.zeros(1, 4, 6, 7).int(), "gelu_gate"),
    ],
)
def test_bad_arguments(x, message):
    with pytest.raises(RuntimeError, match=message):
        gelu_gate(x)


@requires_ops
@pytest.mark.parametrize(
    "grad, message",
    [
        (torch.zeros(2, 4, 6, 7), "grad must have the shape of x with half its channels"),
        (torch.zeros(2, 2, 6, 7).half(), "grad must be of the dtype of x, Float, got Half"),
    ],
)
def test_bad_gradients(grad, message):
    with pytest.raises(RuntimeError, match=message):
        torch.ops.aicr_ext.gelu_gate_backward(grad, torch.zeros(2, 4, 6, 7))


def test_without_native_operators_the_reference_runs(monkeypatch):
    x, _ = arguments((1, 4, 8, 8))
    with plain_torch():
        assert torch.equal(gelu_gate(x), gelu_gate_reference(x))
    monkeypatch.setattr(_native, "HAS_OPS", False)
    assert torch.equal(gelu_gate(x), gelu_gate_reference(x))
