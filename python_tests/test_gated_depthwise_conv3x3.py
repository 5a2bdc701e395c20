"""The operator gated_depthwise_conv3x3 and its backward against their plain-torch definitions."""

from __future__ import annotations

import sys

import pytest
import torch
import torch.nn.functional as F
from op_cases import (
    BAD_DEPTHWISE_ARGUMENTS,
    LAYOUTS,
    VIEWS,
    assert_no_worse,
    assert_same_bits,
    refuses_depthwise,
    requires_ops,
    with_threads,
    without_avx512_for_torch,
)

from aicr_ext import _native
from aicr_ext.ops import gated_depthwise_conv3x3
from aicr_ext.ops.kernels import plain_torch
from aicr_ext.ops.layout import preferred_layout
from aicr_ext.ops.reference import (
    gated_depthwise_conv3x3_backward_reference,
    gated_depthwise_conv3x3_reference,
)

# Rows and columns beyond one block and strip, groups of pixels that do not fill, channels below, at and beside a
# multiple of a vector, and a multiple of 64, which lies apart in working memory.
SHAPES = [
    (1, 2, 1, 1),
    (3, 10, 9, 1),
    (1, 6, 1, 9),
    (2, 2, 33, 17),
    (3, 14, 37, 21),
    (1, 128, 34, 70),
    (2, 66, 16, 24),
    (1, 170, 6, 51),
    (1, 4, 20, 4200),
]


def arguments(shape, dtype=torch.float32, layout="nchw", bias=True, weight_dtype=None):
    """Gradient of the result, x, weight and bias (or None)."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(shape, generator=generator)
    grad = torch.randn(shape[0], shape[1] // 2, *shape[2:], generator=generator)
    weight = torch.randn(shape[1], 1, 3, 3, generator=generator).to(weight_dtype or dtype)
    offsets = torch.randn(shape[1], generator=generator).to(weight_dtype or dtype) if bias else None
    grad, x = (t.to(dtype).to(memory_format=LAYOUTS[layout]) for t in (grad, x))
    return grad, x, weight, offsets


def wide(*tensors):
    return tuple(None if t is None else t.double() for t in tensors)


def check(grad, *args, activation="gelu"):
    gelu = activation == "gelu"
    out = gated_depthwise_conv3x3(*args, activation=activation)
    exact = gated_depthwise_conv3x3_reference(*wide(*args), gelu)
    assert_no_worse(out, gated_depthwise_conv3x3_reference(*args, gelu), exact)
    gradients = torch.ops.aicr_ext.gated_depthwise_conv3x3_backward(grad, *args, gelu)
    eager = gated_depthwise_conv3x3_backward_reference(grad, *args, gelu)
    exact = gated_depthwise_conv3x3_backward_reference(*wide(grad, *args), gelu)
    for ours in zip(gradients, eager, exact, strict=True):
        assert_no_worse(*ours)
    return out, *gradients


@requires_ops
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("activation", ["gelu", None])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_matches_the_reference(shape, activation, dtype, layout):
    args = arguments(shape, dtype, layout, bias=activation is None or shape[0] == 1)
    out, grad_x, grad_weight, _ = check(*args, activation=activation)
    assert out.dtype == grad_x.dtype == dtype
    assert grad_weight.dtype == torch.float32
    assert grad_x.stride() == args[1].stride()
    assert out.is_contiguous(memory_format=LAYOUTS[layout])


@requires_ops
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("gelu", [True, False])
def test_float64(gelu, layout):
    grad, *args = arguments((2, 22, 19, 23), torch.float64, layout)
    out = torch.ops.aicr_ext.gated_depthwise_conv3x3(*args, gelu)
    ours = (out, *torch.ops.aicr_ext.gated_depthwise_conv3x3_backward(grad, *args, gelu))
    gradients = gated_depthwise_conv3x3_backward_reference(grad, *args, gelu)
    exact = (gated_depthwise_conv3x3_reference(*args, gelu), *gradients)
    torch.testing.assert_close(ours, exact, rtol=1e-11, atol=1e-11)


@requires_ops
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("channels", [24, 70])
def test_each_element_is_rounded_once_and_weights_may_be_float32(channels, layout):
    grad, x, weight, bias = arguments((2, channels, 9, 10), torch.bfloat16, layout, weight_dtype=torch.float32)
    exact = gated_depthwise_conv3x3(x.float(), weight, bias)
    assert torch.equal(gated_depthwise_conv3x3(x, weight, bias), exact.bfloat16())
    backward = torch.ops.aicr_ext.gated_depthwise_conv3x3_backward
    rounded, whole = backward(grad, x, weight, bias, True), backward(grad.float(), x.float(), weight, bias, True)
    assert torch.equal(rounded[0], whole[0].bfloat16())
    assert torch.equal(rounded[1], whole[1])
    assert torch.equal(rounded[2], whole[2])


@requires_ops
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("shape", [(0, 8, 4, 4), (2, 0, 4, 4), (2, 8, 0, 4), (2, 8, 4, 0)], ids=str)
def test_empty(shape, layout):
    grad, *args = arguments(shape, layout=layout)
    assert gated_depthwise_conv3x3(*args).shape == grad.shape
    gradients = torch.ops.aicr_ext.gated_depthwise_conv3x3_backward(grad, *args, True)
    assert [g.shape for g in gradients] == [a.shape for a in args]
    assert not gradients[1].any()
    assert not gradients[2].any()


@requires_ops
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("view", VIEWS)
def test_views(view, layout):
    """Inputs that are not dense give the right answer, and the layout of the tensor they are a view of."""
    x = view(arguments((3, 16, 12, 14), layout=layout)[1])
    _, _, weight, bias = arguments((1, x.shape[1], 1, 1))
    grad = torch.ones(()).expand(x.shape[0], x.shape[1] // 2, *x.shape[2:])
    out, grad_x, *_ = check(grad, x, weight, bias)
    assert out.is_contiguous(memory_format=preferred_layout(x))
    assert grad_x.is_contiguous(memory_format=preferred_layout(x))


@requires_ops
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("channels, dtype", [(24, torch.float32), (64, torch.float32), (70, torch.bfloat16)])
def test_two_runs_and_any_number_of_threads_give_the_same_bits(channels, dtype, layout):
    args = arguments((2, channels, 70, 50), dtype, layout)
    assert_same_bits(with_threads(lambda: check(*args)))


@requires_ops
@pytest.mark.parametrize("weight_dtype", [torch.float32, None], ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_rows_have_the_same_bits_wherever_the_map_is_cut(dtype, weight_dtype):
    _, x, *rest = arguments((1, 86, 40, 53), dtype, "channels_last", weight_dtype=weight_dtype)
    whole = gated_depthwise_conv3x3(x, *rest)
    for first, last in ((1, 8), (2, 9), (7, 40), (16, 18)):
        part = gated_depthwise_conv3x3(x[:, :, first - 1 : last + 1], *rest)
        assert torch.equal(part[:, :, 1 : last - first + 1], whole[:, :, first:last])
        columns = gated_depthwise_conv3x3(x[..., first - 1 : last + 1], *rest)
        assert torch.equal(columns[..., 1 : last - first + 1], whole[..., first:last])


@requires_ops
def test_without_avx512():
    """What runs where the processor has none, in a process that may not use it."""
    without_avx512_for_torch("import test_gated_depthwise_conv3x3 as tests; tests.check_channels_last()")


def check_channels_last():
    for shape in SHAPES:
        for dtype in (torch.float32, torch.bfloat16, torch.float16):
            check(*arguments(shape, dtype, "channels_last"))


@requires_ops
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("shape", [(1, 70, 13, 37), (2, 128, 9, 8), (1, 64, 2, 130)], ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_not_a_number_reaches_its_neighbours_only(dtype, shape, layout):
    _, x, weight, bias = arguments(shape, dtype, layout)
    x[0, 40, 1, 5] = float("nan")
    expected = F.max_pool2d(x.isnan().float(), 3, 1, 1)
    expected = torch.maximum(*expected.chunk(2, 1)).bool()
    assert torch.equal(gated_depthwise_conv3x3(x, weight, bias).isnan(), expected)


@requires_ops
@pytest.mark.parametrize("native", [True, False])
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("activation", ["gelu", None])
def test_gradients(activation, layout, native, monkeypatch):
    """Of the kernels, and of the plain-torch backward formula that stands in for them."""
    if not native:
        module = sys.modules["aicr_ext.ops.gated_depthwise_conv3x3"]  # the name in the package is the function's
        monkeypatch.setattr(module, "has_kernel", lambda *_, **__: False)
    args = [t.requires_grad_() for t in arguments((2, 4, 3, 4), torch.float64, layout)[1:]]
    op = torch.ops.aicr_ext.gated_depthwise_conv3x3
    assert torch.autograd.gradcheck(op, [*args, activation == "gelu"])
    assert torch.autograd.gradgradcheck(op, [*args, activation == "gelu"])


@requires_ops
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("bias", [True, False])
def test_opcheck(bias, layout):
    grad, x, weight, offsets = arguments((2, 6, 5, 7), layout=layout, bias=bias)
    ops = torch.ops.aicr_ext
    torch.library.opcheck(ops.gated_depthwise_conv3x3_backward.default, (grad, x, weight, offsets, True))
    cut = (x[:, :, 1:3], weight, offsets, False)
    torch.library.opcheck(ops.gated_depthwise_conv3x3.default, cut, test_utils="test_faketensor")
    args = (x.requires_grad_(), weight.requires_grad_(), offsets, True)
    torch.library.opcheck(ops.gated_depthwise_conv3x3.default, args)


@requires_ops
def test_compile():
    _, x, weight, _ = arguments((1, 6, 5, 7), layout="channels_last")

    def step(x):
        return (gated_depthwise_conv3x3(x * 2, weight) + 1).square().sum()

    ours, eager = (x.clone().requires_grad_() for _ in range(2))
    torch.compile(step, fullgraph=True, backend="aot_eager", dynamic=True)(ours).backward()
    step(eager).backward()
    torch.testing.assert_close(ours.grad, eager.grad)


@requires_ops
def test_under_autocast_the_map_decides():
    _, x, weight, _ = arguments((1, 6, 8, 8))
    with torch.autocast("cpu", torch.bfloat16):
        low = F.conv2d(x, torch.eye(6)[:, :, None, None])
        out = gated_depthwise_conv3x3(low, weight)
        wide, defined = gated_depthwise_conv3x3(x, weight), gated_depthwise_conv3x3_reference(x, weight, None, True)
    assert low.dtype == out.dtype == torch.bfloat16
    assert torch.equal(wide, gated_depthwise_conv3x3(x, weight))
    assert torch.equal(defined, gated_depthwise_conv3x3_reference(x, weight, None, True))


@requires_ops
@pytest.mark.parametrize(
    "change, message",
    [*BAD_DEPTHWISE_ARGUMENTS, ({0: torch.zeros(1, 5, 6, 7)}, "x must have an even number of channels, got 5")],
)
def test_bad_arguments(change, message):
    refuses_depthwise(gated_depthwise_conv3x3, change, message)


@requires_ops
@pytest.mark.parametrize(
    "grad, message",
    [
        (torch.zeros(2, 4, 6, 7), "grad must have the shape of the result"),
        (torch.zeros(2, 2, 6, 7).half(), "grad must be of the dtype of x, Float, got Half"),
    ],
)
def test_bad_gradients(grad, message):
    args = (torch.zeros(2, 4, 6, 7), torch.zeros(4, 1, 3, 3), None, True)
    with pytest.raises(RuntimeError, match=message):
        torch.ops.aicr_ext.gated_depthwise_conv3x3_backward(grad, *args)


def test_another_activation_is_an_error():
    with pytest.raises(ValueError, match="activation must be 'gelu' or None, got 'relu'"):
        gated_depthwise_conv3x3(torch.zeros(1, 2, 3, 3), torch.zeros(2, 1, 3, 3), activation="relu")


def test_without_native_operators_the_reference_runs(monkeypatch):
    _, x, weight, bias = arguments((1, 4, 8, 8))
    expected = gated_depthwise_conv3x3_reference(x, weight, bias, True)
    with plain_torch():
        assert torch.equal(gated_depthwise_conv3x3(x, weight, bias), expected)
    monkeypatch.setattr(_native, "HAS_OPS", False)
    assert torch.equal(gated_depthwise_conv3x3(x, weight, bias), expected)
