"""The operator layer_norm2d and its backward against their plain-torch definitions."""

from __future__ import annotations

import hashlib
import sys

import pytest
import torch
from op_cases import assert_same_bits, poisoned_memory, with_threads, without_avx512_for_torch

from aicr_ext import _native
from aicr_ext.ops import layer_norm2d
from aicr_ext.ops.kernels import has_kernel, plain_torch
from aicr_ext.ops.layout import preferred_layout
from aicr_ext.ops.reference import layer_norm2d_backward_reference, layer_norm2d_reference

LAYOUTS = {"nchw": torch.contiguous_format, "channels_last": torch.channels_last}
# Pixels beyond one piece, sizes that divide nothing, single rows and columns, one channel, as many channels as two
# vectors hold, more of them, no whole number of vectors.
SHAPES = [(1, 1, 1, 1), (3, 5, 9, 1), (2, 1, 33, 17), (3, 7, 37, 21), (2, 64, 16, 24), (1, 192, 13, 11), (1, 600, 5, 9)]
SHAPES += [(1, 32, 19, 23), (1, 80, 7, 9)]
VARIANTS = [(False, False), (True, False), (True, True), (False, True)]  # subtract_mean, with a bias
DTYPES = [torch.float32, torch.bfloat16, torch.float16]

requires_ops = pytest.mark.skipif(not _native.HAS_OPS, reason="the native operators are not built")


def arguments(shape, dtype=torch.float32, layout="nchw", weight_dtype=None, offset=0.5):
    """x, weight, bias and the gradient of the result."""
    generator = torch.Generator().manual_seed(0)

    def draw(*size, dtype):
        return torch.randn(*size, generator=generator).to(dtype)

    x, grad = ((draw(*shape, dtype=dtype) + offset).to(memory_format=LAYOUTS[layout]) for _ in range(2))
    weight, bias = (draw(shape[1], dtype=weight_dtype or dtype) for _ in range(2))
    return x, weight, bias, grad


def assert_no_worse(out, eager, exact):
    """At most twice the error of eager PyTorch in the same dtype, against float64, plus a few last bits."""
    assert out.shape == exact.shape
    if exact.numel() == 0:
        return
    allowed = 2 * (eager.double() - exact).abs().max().item()
    scale = exact.abs().max().item()
    assert (out.double() - exact).abs().max().item() <= allowed + 4 * torch.finfo(out.dtype).eps * scale


def check_forward(x, weight, bias, **options):
    out = layer_norm2d(x, weight, bias=bias, **options)
    eager = layer_norm2d_reference(x, weight, bias=bias, **options)
    wide_bias = None if bias is None else bias.double()
    assert_no_worse(out, eager, layer_norm2d_reference(x.double(), weight.double(), bias=wide_bias, **options))
    return out


def check_backward(grad, x, weight, with_bias, subtract_mean):
    rest = (with_bias, subtract_mean, 1e-5)
    out = torch.ops.aicr_ext.layer_norm2d_backward(grad, x, weight, *rest)
    eager = layer_norm2d_backward_reference(grad, x, weight, *rest)
    exact = layer_norm2d_backward_reference(grad.double(), x.double(), weight.double(), *rest)
    for ours, theirs, true in zip(out, eager, exact, strict=True):
        assert_no_worse(ours, theirs, true)
    return out


@requires_ops
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("subtract_mean, with_bias", VARIANTS)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_matches_the_reference(shape, subtract_mean, with_bias, dtype, layout):
    x, weight, bias, grad = arguments(shape, dtype, layout)
    out = check_forward(x, weight, bias if with_bias else None, subtract_mean=subtract_mean)
    assert out.dtype == dtype
    assert out.stride() == x.stride()
    grad_x, grad_weight, grad_bias = check_backward(grad, x, weight, with_bias, subtract_mean)
    assert grad_x.dtype == dtype
    assert grad_x.stride() == x.stride()
    assert grad_weight.dtype == grad_bias.dtype == torch.float32


@requires_ops
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("subtract_mean, with_bias", VARIANTS)
def test_each_element_is_rounded_once(subtract_mean, with_bias, layout):
    """In bfloat16 nothing but the rounding of the result differs from float32 arithmetic."""
    x, weight, bias, _ = arguments((2, 48, 9, 10), torch.bfloat16, layout, torch.float32)
    bias = bias if with_bias else None
    out = layer_norm2d(x, weight, bias=bias, subtract_mean=subtract_mean)
    wide = layer_norm2d(x.float(), weight, bias=bias, subtract_mean=subtract_mean)
    assert torch.equal(out, wide.bfloat16())


@requires_ops
@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_large_mean_does_not_cost_the_variance_its_digits(layout):
    x, weight, *_ = arguments((1, 32, 6, 7), layout=layout, offset=1000.0)
    exact = layer_norm2d_reference(x.double(), weight.double(), subtract_mean=True)
    out = layer_norm2d(x, weight, subtract_mean=True)
    torch.testing.assert_close(out.double(), exact, rtol=1e-3, atol=1e-3)


def bfloat16_bits():
    """Of the results for channels-last maps, some of whose values are not finite."""
    found = hashlib.sha256()
    for shape in SHAPES:
        x, weight, bias, _ = arguments(shape, torch.bfloat16, "channels_last")
        x[0, 0, 0, 0] = float("inf")
        x[-1, -1, -1, -1] = float("nan")
        out = layer_norm2d(x, weight, bias=bias, subtract_mean=True)
        found.update(out.contiguous().nan_to_num(7).view(torch.int16).numpy().tobytes())
    return found.hexdigest()


@requires_ops
def test_bfloat16_is_rounded_alike_with_and_without_instructions_for_it():
    elsewhere = without_avx512_for_torch("import test_layer_norm2d as tests; print(tests.bfloat16_bits())")
    assert elsewhere.split() == [bfloat16_bits()]


@requires_ops
@pytest.mark.parametrize("layout", LAYOUTS)
def test_float32_weights_with_low_precision_maps(layout):
    x, weight, bias, grad = arguments((2, 8, 20, 20), torch.bfloat16, layout, torch.float32)
    assert check_forward(x, weight, bias).dtype == torch.bfloat16
    check_backward(grad, x, weight, True, True)


@requires_ops
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("shape", [(0, 8, 4, 4), (2, 0, 4, 4), (2, 8, 0, 4), (2, 8, 4, 0)], ids=str)
def test_empty(shape, layout):
    x, weight, bias, grad = arguments(shape, layout=layout)
    assert layer_norm2d(x, weight, bias=bias).shape == shape
    grad_x, grad_weight, grad_bias = torch.ops.aicr_ext.layer_norm2d_backward(grad, x, weight, True, True, 1e-5)
    assert grad_x.shape == shape
    assert torch.equal(grad_weight, torch.zeros(shape[1]))
    assert torch.equal(grad_bias, torch.zeros(shape[1]))


@requires_ops
@pytest.mark.parametrize("view", ["rows", "columns", "channels", "batch", "transposed", "expanded", "grad"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_views(layout, view):
    """Inputs that are not dense give the right answer, and the layout of the tensor they are a view of."""
    x, weight, bias, grad = arguments((4, 8, 12, 14), layout=layout)
    cut = {
        "rows": lambda t: t[:, :, 2:9],
        "columns": lambda t: t[..., 1::2],
        "channels": lambda t: t[:, :5],
        "batch": lambda t: t[::2],
        "transposed": lambda t: t.transpose(2, 3),
        "expanded": lambda t: t[:1].expand(3, -1, -1, -1),
        "grad": lambda t: t,
    }[view]
    x = cut(x)
    grad = torch.ones(()).expand(x.shape) if view == "grad" else cut(grad)
    weight, bias = weight[: x.shape[1]], bias[: x.shape[1]]
    out = check_forward(x, weight, bias, subtract_mean=True)
    assert out.is_contiguous(memory_format=preferred_layout(x))
    check_backward(grad, x, weight, True, True)


@requires_ops
@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_element_is_written(layout):
    x, weight, _, grad = arguments((2, 24, 35, 33), layout=layout)
    with poisoned_memory():
        out = layer_norm2d(x, weight), *torch.ops.aicr_ext.layer_norm2d_backward(grad, x, weight, True, False, 1e-5)
    assert all(t.isfinite().all() for t in out)


@requires_ops
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("channels, dtype", [(20, torch.float32), (50, torch.float32), (50, torch.bfloat16)])
def test_not_a_number_stays_in_its_pixel(channels, dtype, layout):
    x, weight, _, _ = arguments((1, channels, 7, 9), dtype, layout)
    x[0, 3, 4, 5] = float("nan")
    expected = torch.zeros_like(x, dtype=torch.bool)
    expected[0, :, 4, 5] = True
    assert torch.equal(layer_norm2d(x, weight).isnan(), expected)


@requires_ops
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("channels, dtype", [(24, torch.float32), (72, torch.float32), (72, torch.bfloat16)])
def test_two_runs_and_any_number_of_threads_give_the_same_bits(channels, dtype, layout):
    x, weight, _, grad = arguments((2, channels, 70, 50), dtype, layout)

    def both():
        gradients = torch.ops.aicr_ext.layer_norm2d_backward(grad, x, weight, True, True, 1e-5)
        return layer_norm2d(x, weight), *gradients

    assert_same_bits(with_threads(both))


@requires_ops
@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_picture_does_not_depend_on_its_batch(layout):
    x, weight, _, _ = arguments((3, 20, 40, 30), layout=layout)
    assert torch.equal(layer_norm2d(x, weight), torch.cat([layer_norm2d(picture, weight) for picture in x.split(1)]))


# Derivatives, compilation, registration


@requires_ops
@pytest.mark.parametrize("native", [True, False])
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("subtract_mean, with_bias", VARIANTS)
def test_gradients(subtract_mean, with_bias, layout, native, monkeypatch):
    """Of the kernels, and of the plain-torch backward formula that stands in for them."""
    if not native:
        module = sys.modules["aicr_ext.ops.layer_norm2d"]  # the name in the package is the function's
        monkeypatch.setattr(module, "has_kernel", lambda *_, **__: False)
    x, weight, bias, _ = arguments((2, 3, 2, 3), torch.float64, layout)
    inputs = [t.requires_grad_() for t in (x, weight, bias)]

    def run(x, weight, bias):
        return torch.ops.aicr_ext.layer_norm2d(x, weight, bias if with_bias else None, subtract_mean, 1e-3)

    assert torch.autograd.gradcheck(run, inputs[: 3 if with_bias else 2] + [bias.detach()] * (not with_bias))


@requires_ops
@pytest.mark.parametrize("subtract_mean", [False, True])
def test_second_derivatives(subtract_mean):
    x, weight, bias, _ = arguments((1, 3, 2, 2), torch.float64)
    inputs = [t.requires_grad_() for t in (x, weight, bias)]
    assert torch.autograd.gradgradcheck(
        lambda x, w, b: layer_norm2d(x, w, bias=b, subtract_mean=subtract_mean, eps=1e-2), inputs
    )


@requires_ops
def test_gradients_have_the_dtypes_of_their_tensors():
    for weight_dtype in (torch.float32, torch.bfloat16):
        x, weight, bias, grad = arguments((1, 4, 6, 6), torch.bfloat16, weight_dtype=weight_dtype)
        inputs = [t.requires_grad_() for t in (x, weight, bias)]
        layer_norm2d(x, weight, bias=bias).backward(grad)
        assert [t.grad.dtype for t in inputs] == [torch.bfloat16, weight_dtype, weight_dtype]


@requires_ops
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("subtract_mean, with_bias", VARIANTS)
def test_opcheck(subtract_mean, with_bias, layout):
    x, weight, bias, grad = arguments((2, 3, 6, 7), layout=layout)
    rest = (with_bias, subtract_mean, 1e-5)
    torch.library.opcheck(torch.ops.aicr_ext.layer_norm2d_backward.default, (grad, x, weight, *rest))
    x, weight, bias = (t.requires_grad_() for t in (x, weight, bias))
    arguments_ = (x, weight, bias if with_bias else None, subtract_mean, 1e-5)
    torch.library.opcheck(torch.ops.aicr_ext.layer_norm2d.default, arguments_)


@requires_ops
@pytest.mark.parametrize("view", [lambda t: t[:, :, 1:5], lambda t: t[:, :2]])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_fake_kernels_agree_on_strides(layout, view):
    x, weight, _, grad = arguments((2, 3, 6, 7), layout=layout)
    weight = weight[: view(x).shape[1]]
    ops = torch.ops.aicr_ext
    torch.library.opcheck(ops.layer_norm2d.default, (view(x), weight, None, False, 1e-5), test_utils="test_faketensor")
    torch.library.opcheck(
        ops.layer_norm2d_backward.default,
        (view(grad), view(x), weight, True, False, 1e-5),
        test_utils="test_faketensor",
    )


@requires_ops
@pytest.mark.parametrize("dynamic", [False, True])
def test_compile(dynamic):
    def step(x, weight):
        return (layer_norm2d(x * 2, weight) + 1).square().sum()

    compiled = torch.compile(step, fullgraph=True, backend="aot_eager", dynamic=dynamic)
    for size in (6, 9):
        x, weight, *_ = arguments((1, 3, size, 7), layout="channels_last")
        ours = [t.requires_grad_() for t in (x, weight)]
        eager = [t.detach().clone().requires_grad_() for t in ours]
        compiled(*ours).backward()
        step(*eager).backward()
        for a, b in zip(ours, eager, strict=True):
            torch.testing.assert_close(a.grad, b.grad)


@requires_ops
def test_autocast_leaves_it_alone():
    x, weight, *_ = arguments((1, 4, 8, 8))
    expected = layer_norm2d(x, weight)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(layer_norm2d(x, weight), expected)
        assert layer_norm2d(x.bfloat16(), weight).dtype == torch.bfloat16


# Arguments


@requires_ops
@pytest.mark.parametrize(
    "x, weight, options, message",
    [
        ((4, 6, 7), (4,), {}, r"x must be \(B, C, H, W\), got 3"),
        ((2, 4, 6, 7), (3,), {}, r"weight must have the shape \(4,\), got 1 dimension\(s\) of another size"),
        ((2, 4, 6, 7), (4, 1), {}, r"weight must have the shape \(4,\), got 2"),
        ((2, 4, 6, 7), (4,), {"bias": torch.zeros(5)}, r"bias must have the shape \(4,\)"),
        ((2, 4, 6, 7), (4,), {"bias": torch.zeros(4).double()}, "bias must be float32 or of the dtype of x"),
        ((2, 4, 6, 7), (4,), {"eps": -1e-5}, "eps must be finite and at least 0"),
        ((2, 4, 6, 7), (4,), {"eps": float("nan")}, "eps must be finite and at least 0"),
    ],
)
def test_bad_arguments(x, weight, options, message):
    with pytest.raises(RuntimeError, match=message):
        layer_norm2d(torch.zeros(x), torch.zeros(weight), **options)


@requires_ops
@pytest.mark.parametrize(
    "grad, message",
    [(torch.zeros(2, 4, 6, 8), "grad must have the shape of x"), (torch.zeros(2, 4, 6, 7).half(), "dtype of x, Float")],
)
def test_bad_gradients(grad, message):
    x, weight, *_ = arguments((2, 4, 6, 7))
    with pytest.raises(RuntimeError, match=message):
        torch.ops.aicr_ext.layer_norm2d_backward(grad, x, weight, False, False, 1e-5)


@requires_ops
def test_integers_are_refused():
    with pytest.raises(RuntimeError, match="layer_norm2d"):
        layer_norm2d(torch.zeros(1, 2, 3, 3).int(), torch.ones(2))


def test_without_native_operators_the_reference_runs(monkeypatch):
    x, weight, bias, _ = arguments((1, 4, 8, 8))
    expected = layer_norm2d_reference(x, weight, 1e-4, bias=bias, subtract_mean=True)
    with plain_torch():
        assert torch.equal(layer_norm2d(x, weight, 1e-4, bias=bias, subtract_mean=True), expected)
    monkeypatch.setattr(_native, "HAS_OPS", False)
    assert torch.equal(layer_norm2d(x, weight, 1e-4, bias=bias, subtract_mean=True), expected)


def test_plain_torch_ends_with_its_block():
    with plain_torch():
        assert not has_kernel("cpu")
    assert has_kernel("cpu") == _native.HAS_OPS
