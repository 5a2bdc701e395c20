"""The operator depthwise_conv3x3 against its plain-torch definition, and where it stands for torch's convolution."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from cuda_cases import draw
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
from torch.utils.flop_counter import FlopCounterMode

from aicr_ext.ops import depthwise_conv3x3 as module
from aicr_ext.ops.depthwise_conv3x3 import depthwise_conv3x3
from aicr_ext.ops.kernels import plain_torch
from aicr_ext.ops.layout import preferred_layout
from aicr_ext.ops.reference import depthwise_conv3x3_reference

# Channels below, at and beside a multiple of a vector; some whose pixels lie so far apart that they are copied;
# segments, blocks and strips that do not fill; single rows and columns.
SHAPES = [(1, 1, 1, 1), (2, 5, 9, 1), (1, 33, 1, 9), (2, 64, 17, 25), (3, 85, 6, 51), (1, 256, 21, 33), (1, 512, 5, 2)]
DTYPES = [torch.float32, torch.bfloat16, torch.float16]

operator = torch.ops.aicr_ext.depthwise_conv3x3


def arguments(shape, dtype=torch.float32, layout="channels_last", bias=True, weight_dtype=None):
    weights = draw(shape[1], 1, 3, 3), draw(shape[1]) if bias else None
    x = draw(*shape).to(dtype).to(memory_format=LAYOUTS[layout])
    return x, *(None if t is None else t.to(weight_dtype or dtype) for t in weights)


def check(*args):
    out = operator(*args)
    exact = depthwise_conv3x3_reference(*(None if t is None else t.double() for t in args))
    assert_no_worse(out, depthwise_conv3x3_reference(*args), exact)
    return out


@requires_ops
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_matches_the_reference(shape, dtype, layout):
    args = arguments(shape, dtype, layout, bias=shape[1] % 2 == 1)
    out = check(*args)
    assert out.dtype == dtype
    assert out.stride() == args[0].stride()


@requires_ops
def test_without_avx512():
    """What runs where the processor has none, in a process that may not use it."""
    without_avx512_for_torch("import test_depthwise_conv3x3_inference as tests; tests.check_channels_last()")


def check_channels_last():
    assert not module._HAS_AVX512
    for shape in SHAPES:
        for dtype in DTYPES:
            check(*arguments(shape, dtype))


@requires_ops
@pytest.mark.parametrize("layout", LAYOUTS)
def test_float64(layout):
    args = arguments((2, 11, 19, 23), torch.float64, layout)
    torch.testing.assert_close(operator(*args), depthwise_conv3x3_reference(*args), rtol=1e-12, atol=1e-12)


@requires_ops
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("channels", [12, 40])
def test_each_element_is_rounded_once_and_weights_may_be_float32(channels, layout):
    x, *weights = arguments((2, channels, 9, 10), torch.bfloat16, layout, weight_dtype=torch.float32)
    assert torch.equal(operator(x, *weights), operator(x.float(), *weights).bfloat16())


@requires_ops
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("shape", [(0, 8, 4, 4), (2, 0, 4, 4), (2, 8, 0, 4), (2, 8, 4, 0)], ids=str)
def test_empty(shape, layout):
    assert operator(*arguments(shape, layout=layout)).shape == shape


@requires_ops
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("view", VIEWS)
def test_views(view, layout):
    x = view(arguments((3, 16, 12, 14), layout=layout)[0])
    out = check(x, *arguments((1, x.shape[1], 1, 1))[1:])
    assert out.is_contiguous(memory_format=preferred_layout(x))


@requires_ops
@pytest.mark.parametrize("channels", [24, 70, 256])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_the_same_bits_for_any_number_of_threads_and_wherever_the_map_is_cut(dtype, channels):
    x, *weights = arguments((1, channels, 40, 53), dtype)
    results = with_threads(lambda: operator(x, *weights))
    assert_same_bits(results)
    for first, last in ((1, 8), (2, 9), (7, 39), (16, 18)):
        rows = operator(x[:, :, first - 1 : last + 1], *weights)
        assert torch.equal(rows[:, :, 1:-1], results[0][:, :, first:last])
        columns = operator(x[..., first - 1 : last + 1], *weights)
        assert torch.equal(columns[..., 1:-1], results[0][..., first:last])


@requires_ops
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("channels", [70, 256])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_not_a_number_reaches_its_neighbours_only(dtype, channels, layout):
    x, *weights = arguments((1, channels, 13, 37), dtype, layout)
    x[0, 40, 1, 5] = float("nan")
    assert torch.equal(operator(x, *weights).isnan(), F.max_pool2d(x.isnan().float(), 3, 1, 1).bool())


@requires_ops
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("bias", [True, False])
def test_opcheck_and_gradients(bias, layout):
    args = [t.requires_grad_() for t in arguments((2, 4, 3, 5), torch.float64, layout, bias) if t is not None]
    args += [None] * (3 - len(args))
    torch.library.opcheck(operator.default, args)
    assert torch.autograd.gradcheck(operator, args)
    assert torch.autograd.gradgradcheck(operator, args)


@requires_ops
def test_flops():
    with FlopCounterMode(display=False) as count:
        operator(*arguments((2, 5, 6, 7)))
    assert count.get_total_flops() == 2 * 9 * 2 * 5 * 6 * 7


@requires_ops
@pytest.mark.parametrize("change, message", BAD_DEPTHWISE_ARGUMENTS)
def test_bad_arguments(change, message):
    refuses_depthwise(operator, change, message)


@requires_ops
@pytest.mark.parametrize("bias", [True, False])
def test_it_stands_for_the_convolution_where_it_is_faster(bias, monkeypatch):
    monkeypatch.setattr(module, "_HAS_AVX512", True)
    args = arguments((1, 40, 9, 11), torch.bfloat16, bias=bias)
    convolution = F.conv2d(*args, padding=1, groups=40)
    with torch.no_grad():
        out = depthwise_conv3x3(*args)
        assert torch.equal(out, operator(*args))
        assert out.is_contiguous(memory_format=torch.channels_last)
        with plain_torch():
            assert torch.equal(depthwise_conv3x3(*args), convolution)
    monkeypatch.setattr(module, "_is_faster", lambda *_: False)
    torch.testing.assert_close(out, depthwise_conv3x3(*args))


@requires_ops
@pytest.mark.parametrize("case", ["gradients", "float32", "nchw", "few channels", "autocast", "compiled", "no AVX-512"])
def test_elsewhere_the_convolution_is_torchs(case, monkeypatch):
    monkeypatch.setattr(module, "_HAS_AVX512", case != "no AVX-512")
    dtype = torch.float32 if case == "float32" else torch.bfloat16
    x, weight, _ = arguments((1, 8 if case == "few channels" else 40, 5, 6), dtype, bias=False)
    if case == "nchw":
        x = x.contiguous()
    with (
        torch.set_grad_enabled(case == "gradients"),
        torch.autocast("cpu", torch.bfloat16, enabled=case == "autocast"),
        monkeypatch.context() as patched,
    ):
        if case == "compiled":
            patched.setattr(torch.compiler, "is_compiling", lambda: True)
        assert not module._is_faster(x, weight)
