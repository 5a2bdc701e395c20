"""Files, maps and operators: the same bits for any number of threads."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from op_cases import LAYOUTS, assert_no_worse, requires_ops, with_threads
from pictures import smooth
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

import aicr_ext
from aicr_ext.nn import GELU, PointwiseConv2d
from aicr_ext.ops import gelu, pointwise_convolution, steady_convolution

requires_onednn = pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="a torch without oneDNN")


def draw(*size: int, layout: str = "channels_last") -> Tensor:
    x = torch.randn(size, generator=torch.Generator().manual_seed(0))
    return x.contiguous(memory_format=LAYOUTS[layout])


@requires_ops
@requires_onednn
@pytest.mark.parametrize("size", [(128, 96), (48, 33), (130, 70), (17, 400)])
def test_files_are_the_same_for_any_number_of_threads(size):
    """Two libraries add in two orders: sums of 256 and 768 terms in the deepest stage, and what small maps need."""
    codec = aicr_ext.Codec()
    picture = torch.from_numpy(np.asarray(smooth(*size)).copy()).permute(2, 0, 1)
    with torch.no_grad():
        first, *others = with_threads(lambda: codec.latent(picture, 40), (1, 2, 8))
        assert all(torch.equal(first, other) for other in others)
        y, _ = codec.model.y_and_detail(first)
        first, *others = with_threads(lambda: codec.model.hyper_analysis(y), (1, 2, 8))
        assert all(torch.equal(first, other) for other in others)
    for effort in (0, 2):
        files = with_threads(lambda effort=effort: codec.compress(picture, quality=40, effort=effort), (1, 2))
        assert files[0] == files[1]


@requires_onednn
@torch.no_grad()
@pytest.mark.parametrize("size", [(1, 9, 6, 5), (1, 192, 1, 1), (2, 48, 12, 9), (1, 64, 3, 40)])
def test_steady_convolution_does_not_depend_on_threads(size):
    x, weight, bias = draw(*size), draw(32, size[1], 3, 3), torch.ones(32)
    first, *others = with_threads(lambda: steady_convolution(x, weight, bias, (2, 2), (1, 1)), (1, 2, 3, 16))
    assert all(torch.equal(first, other) for other in others)
    exact = F.conv2d(x.double(), weight.double(), bias.double(), 2, 1)
    assert_no_worse(first, F.conv2d(x, weight, bias, 2, 1), exact)


@requires_onednn
@torch.no_grad()
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("size", [(1, 768, 1, 1), (2, 384, 1, 1), (1, 768, 2, 1), (1, 256, 16, 12), (2, 384, 28, 48)])
def test_pointwise_convolution_does_not_depend_on_threads(size, layout, dtype):
    x, weight, bias = (t.to(dtype) for t in (draw(*size, layout=layout), draw(192, size[1], 1, 1), torch.ones(192)))
    first, *others = with_threads(lambda: pointwise_convolution(x, weight, bias), (1, 2, 3, 16))
    assert all(torch.equal(first, other) for other in others)
    assert first.shape == (size[0], 192, *size[2:])
    exact = F.conv2d(x.double(), weight.double(), bias.double())
    assert_no_worse(first, F.conv2d(x, weight, bias), exact)


@torch.no_grad()
@pytest.mark.parametrize("layout", LAYOUTS)
def test_gelu_does_not_depend_on_threads(layout):
    x = draw(1, 33, 25, 60, layout=layout)
    first, *others = with_threads(lambda: gelu(x), (1, 3, 5, 7))
    assert all(torch.equal(first, other) for other in others)
    assert first.stride() == x.stride()
    torch.testing.assert_close(first, F.gelu(x))
    assert torch.equal(gelu(x[:, :, 3:, 5:]), gelu(x[:, :, 3:, 5:].clone()))


@requires_onednn
@pytest.mark.parametrize("size", [(2, 24, 12, 9), (1, 24, 1, 1)])
def test_gradients_are_those_of_the_plain_operations(size):
    inputs = [t.requires_grad_() for t in (draw(*size), draw(8, 24, 1, 1), torch.ones(8))]
    with torch.no_grad():
        expected = pointwise_convolution(*inputs)
    out = pointwise_convolution(*inputs)
    assert torch.equal(out, expected)  # with gradients or without
    found = torch.autograd.grad(gelu(out).square().sum(), inputs)
    plain = torch.autograd.grad(F.gelu(F.conv2d(*inputs)).square().sum(), inputs)
    torch.testing.assert_close(found, plain, rtol=1e-4, atol=1e-4)


@requires_onednn
@pytest.mark.parametrize("size", [(1, 576, 32, 48), (2, 96, 9, 7), (1, 192, 1, 1)])
@pytest.mark.parametrize("kernel, padding", [((1, 1), None), ((3, 3), (1, 1)), ((3, 1), (0, 0)), ((1, 5), (0, 2))])
def test_derivatives_by_the_map_do_not_depend_on_threads(size, kernel, padding):
    """Those of searches, in which weights are given; torch's own do in the first of these sizes."""
    if padding and size[2] + 2 * padding[0] < kernel[0]:
        pytest.skip("the kernel is larger than the map")
    x, weight, bias = draw(*size).requires_grad_(), draw(160, size[1], *kernel), torch.ones(160)

    def derivative(compute):
        out = compute(x, weight, bias)
        return out.detach(), torch.autograd.grad((out * torch.sin(out)).sum(), x)[0]

    def steady(*args):
        return pointwise_convolution(*args) if padding is None else steady_convolution(*args, (1, 1), padding)

    found = with_threads(lambda: derivative(steady), (1, 2, 3))
    assert all(torch.equal(a, b) for other in found[1:] for a, b in zip(found[0], other, strict=True))
    plain = derivative(lambda *args: F.conv2d(*args, padding=padding or 0))
    for a, b in zip(found[0], plain, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-3 * float(b.abs().max()))
    with torch.no_grad():
        assert torch.equal(steady(x, weight, bias), found[0][0])


def test_derivatives_by_a_map_with_more_padding_than_kernel():
    x, weight = draw(2, 6, 4, 5).requires_grad_(), draw(3, 6, 1, 1)
    for padding in ((1, 0), (2, 2)):
        found, plain = (
            torch.autograd.grad(out.square().sum(), x)[0]
            for out in (steady_convolution(x, weight, None, (1, 1), padding), F.conv2d(x, weight, padding=padding))
        )
        torch.testing.assert_close(found, plain)


@requires_onednn
def test_derivatives_of_derivatives_by_the_map():
    x = draw(1, 3, 4, 5).double().float().requires_grad_()
    for kernel, padding in ((1, 0), (3, 1)):
        weight = draw(4, 3, kernel, kernel)

        def twice(compute):
            (first,) = torch.autograd.grad(compute().square().sum(), x, create_graph=True)
            return torch.autograd.grad(first.pow(3).sum(), x)[0]

        def steady(weight=weight, padding=padding):
            return steady_convolution(x, weight, None, (1, 1), (padding, padding))

        ways = [steady] if kernel > 1 else [steady, lambda weight=weight: pointwise_convolution(x, weight)]
        plain = twice(lambda weight=weight, padding=padding: F.conv2d(x, weight, padding=padding))
        for way in ways:
            torch.testing.assert_close(twice(way), plain, rtol=1e-3, atol=1e-3 * float(plain.abs().max()))


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_forward_mode_derivatives():
    x, weight = draw(1, 24, 3, 5), draw(8, 24, 1, 1)
    _, along = torch.func.jvp(lambda t: pointwise_convolution(t, weight), (x,), (x,))
    torch.testing.assert_close(along, F.conv2d(x, weight))


@torch.no_grad()
def test_transforms_get_the_plain_operations():
    """vmap over maps, over weights and over both; GELU of so many values would go piece by piece."""
    x, weight, bias = draw(2, 24, 40, 33), draw(8, 24, 1, 1), torch.ones(8)
    maps, weights = torch.stack([x, 2 * x, -x]), torch.stack([weight, 3 * weight, -weight])

    def call(t, w):
        return gelu(pointwise_convolution(t, w, bias))

    for in_dims, args in (((0, None), (maps, weight)), ((None, 0), (x, weights)), ((0, 0), (maps, weights))):
        pairs = zip(*(t if dim == 0 else [t] * 3 for t, dim in zip(args, in_dims, strict=True)), strict=True)
        expected = torch.stack([F.gelu(F.conv2d(t, w, bias)) for t, w in pairs])
        torch.testing.assert_close(torch.vmap(call, in_dims)(*args), expected, rtol=1e-4, atol=1e-4)


def test_gradients_per_sample():
    x, weight = draw(3, 24, 5, 4), draw(8, 24, 1, 1)

    def loss(way):
        return lambda w, t: way(t[None], w).square().sum()

    found, plain = (
        torch.vmap(torch.func.grad(loss(way)), (None, 0))(weight, x) for way in (pointwise_convolution, F.conv2d)
    )
    torch.testing.assert_close(found, plain)


@torch.no_grad()
def test_autocast_and_other_dtypes():
    x, weight, bias = draw(2, 24, 9, 7), draw(8, 24, 1, 1), torch.ones(8)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(pointwise_convolution(x, weight, bias), F.conv2d(x, weight, bias))
    wide = pointwise_convolution(x.double(), weight.double(), bias.double())
    torch.testing.assert_close(wide, F.conv2d(x.double(), weight.double(), bias.double()))
    assert pointwise_convolution(x[:0], weight, bias).shape == (0, 8, 9, 7)
    with pytest.raises(RuntimeError, match="to have 24 channels"):
        pointwise_convolution(x[:, :5], weight)
    with torch.backends.mkldnn.flags(enabled=False):
        torch.testing.assert_close(pointwise_convolution(x, weight, bias), F.conv2d(x, weight, bias))


@pytest.mark.filterwarnings("ignore:`torch.jit.trace:DeprecationWarning")
@torch.no_grad()
def test_graphs_hold_the_plain_operations():
    module = torch.nn.Sequential(PointwiseConv2d(24, 8), GELU())
    x = draw(2, 24, 40, 50)
    compiled = torch.compile(module, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(x), module(x))
    program = torch.export.export(module, (x,), dynamic_shapes=({2: torch.export.Dim("h"), 3: torch.export.Dim("w")},))
    names = [str(node.target) for node in program.graph.nodes if node.op == "call_function"]
    assert names == ["aten.conv2d.default", "aten.gelu.default"]
    torch.testing.assert_close(torch.jit.trace(module, x)(x[:, :, :5]), module(x[:, :, :5]))


@torch.no_grad()
def test_operations_are_counted():
    with FlopCounterMode(display=False) as counter:
        pointwise_convolution(draw(2, 24, 9, 7), draw(8, 24, 1, 1))
    assert counter.get_total_flops() == 2 * 2 * 24 * 8 * 9 * 7


def test_modules_are_those_of_torch():
    module, plain = PointwiseConv2d(6, 4, bias=False), torch.nn.Conv2d(6, 4, 1, bias=False)
    plain.load_state_dict(module.state_dict())
    x = draw(1, 6, 3, 5)
    torch.testing.assert_close(module(x), plain(x))
