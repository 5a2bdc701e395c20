"""The derivative of the 3x3 depthwise convolution as an operator, and the convolution that has it."""

from __future__ import annotations

import sys

import pytest
import torch
import torch.nn.functional as F
from cuda_cases import depthwise_backward_arguments, draw, named, run
from emulation import requires_emulation
from op_cases import LAYOUTS, requires_ops
from torch.utils.flop_counter import FlopCounterMode

from aicr_ext import _native
from aicr_ext.ops import block_backward, block_paths, blocks
from aicr_ext.ops import depthwise_conv3x3 as module
from aicr_ext.ops.depthwise_conv3x3 import depthwise_conv3x3, depthwise_conv3x3_backward
from aicr_ext.ops.kernels import plain_torch

SHAPE = (2, 5, 6, 7)


def differentiated(x, weight, bias):
    """As on CUDA, where gradients are formed by the operator."""
    return module._DepthwiseConv3x3.apply(x, weight, bias)


@requires_ops
@pytest.mark.parametrize("with_bias", [True, False])
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=named)
def test_gradients_are_those_of_torch(dtype, layout, with_bias):
    x, bias = draw(*SHAPE).to(dtype).to(memory_format=LAYOUTS[layout]), draw(5).to(dtype) if with_bias else None
    leaves = [t.requires_grad_() for t in (x, draw(5, 1, 3, 3).to(dtype), bias) if t is not None]
    args = (*leaves, *[None] * (3 - len(leaves)))
    out, expected = differentiated(*args), F.conv2d(*args, padding=1, groups=5)
    assert torch.equal(out, expected)
    grad = draw(*SHAPE, seed=1).to(dtype)
    found, eager = torch.autograd.grad(out, leaves, grad), torch.autograd.grad(expected, leaves, grad)
    for ours, theirs in zip(found, eager, strict=True):
        assert ours.dtype == dtype
        torch.testing.assert_close(ours, theirs)


@pytest.mark.gpu
@pytest.mark.skipif(not (torch.cuda.is_available() and _native.HAS_CUDA_OPS), reason="no CUDA device")
@pytest.mark.parametrize("layout", LAYOUTS)
def test_gradients_on_a_gpu(layout):
    leaves = [t.cuda().to(memory_format=LAYOUTS[layout]) for t in (draw(2, 20, 19, 35), draw(20, 1, 3, 3))]
    leaves = [t.requires_grad_() for t in (*leaves, draw(20).cuda())]
    out = depthwise_conv3x3(*leaves)
    assert "DepthwiseConv3x3" in type(out.grad_fn).__name__
    grad = draw(2, 20, 19, 35, seed=1).cuda()
    exact = [t.detach().double().requires_grad_() for t in leaves]
    expected = torch.autograd.grad(F.conv2d(*exact, padding=1, groups=20), exact, grad.double())
    for ours, true in zip(torch.autograd.grad(out, leaves, grad), expected, strict=True):
        torch.testing.assert_close(ours.double(), true, rtol=1e-4, atol=1e-4)


@requires_emulation
@requires_ops
@pytest.mark.parametrize("recompute", [True, False])
@pytest.mark.parametrize("bias", [True, False])
def test_channel_attention_learns_by_the_kernel(bias, recompute, monkeypatch):
    """On the host in place of the definition, in the derivative of the block and in that of depthwise_gram."""
    c, groups = 6, 3

    def projection(*size):
        return draw(*size).requires_grad_(), draw(size[0], seed=1).requires_grad_() if bias else None

    x, temperature = draw(2, c, 9, 11).requires_grad_(), draw(groups).abs().requires_grad_()
    args = (x, projection(3 * c, c, 1, 1), projection(3 * c, 1, 3, 3), temperature, projection(c, c, 1, 1))
    leaves = [x, temperature, *(t for pair in (args[1], args[2], args[4]) for t in pair if t is not None)]
    monkeypatch.setattr(block_paths, "has_channel_kernels", lambda x: not recompute)
    monkeypatch.setattr(blocks, "depthwise_conv3x3", differentiated)

    def gradients():
        out = blocks.transposed_attention(*args, groups=groups, residual=True, recompute=recompute)
        return torch.autograd.grad(out.square().sum(), leaves)

    expected, calls = gradients(), []

    def by_kernel(*arguments):
        calls.append(arguments)
        return run("depthwise_conv3x3_backward", arguments, "emulated")

    for user in (module, block_backward, sys.modules["aicr_ext.ops.depthwise_gram"]):
        monkeypatch.setattr(user, "depthwise_conv3x3_backward", by_kernel)
    for ours, theirs in zip(gradients(), expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5 * theirs.abs().max().item())
    assert len(calls) == (1 if recompute else 2)


@requires_ops
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("native", [True, False])
def test_second_derivatives(native, layout, monkeypatch):
    if native:
        monkeypatch.setattr(module, "_is_native", lambda x: True)  # the operator for float64, too
    x = draw(1, 2, 3, 4).double().to(memory_format=LAYOUTS[layout])
    leaves = [t.requires_grad_() for t in (x, draw(2, 1, 3, 3).double(), draw(2).double())]
    assert torch.autograd.gradcheck(differentiated, leaves)
    assert torch.autograd.gradgradcheck(differentiated, leaves)


@requires_ops
@pytest.mark.parametrize("layout, with_bias", [("nchw", True), ("channels_last", False)])
def test_opcheck(layout, with_bias):
    grad, x, *rest = depthwise_backward_arguments(SHAPE, with_bias)
    x = x.to(memory_format=LAYOUTS[layout])
    op = torch.ops.aicr_ext.depthwise_conv3x3_backward.default
    torch.library.opcheck(op, (grad, x, *rest))
    torch.library.opcheck(op, (grad[:, :, 1:3], x[:, :, 1:3], *rest), test_utils="test_faketensor")


@requires_ops
def test_compile():
    x, weight = draw(*SHAPE), draw(5, 1, 3, 3)

    def step(x):
        return (differentiated(x * 2, weight, None) + 1).square().sum()

    ours, eager = (x.clone().requires_grad_() for _ in range(2))
    torch.compile(step, fullgraph=True, backend="aot_eager", dynamic=True)(ours).backward()
    step(eager).backward()
    torch.testing.assert_close(ours.grad, eager.grad)


@requires_ops
def test_flops():
    args = depthwise_backward_arguments(SHAPE, True)
    with torch.no_grad(), FlopCounterMode(display=False) as count:
        depthwise_conv3x3_backward(*args)
    assert count.get_total_flops() == 2 * 2 * 9 * 2 * 5 * 6 * 7


@requires_ops
def test_autocast_does_not_change_the_gradients():
    args = depthwise_backward_arguments(SHAPE, True)
    with torch.no_grad():
        expected = depthwise_conv3x3_backward(*args)
        with torch.autocast("cpu", torch.bfloat16):
            found = depthwise_conv3x3_backward(*args)
    assert all(map(torch.equal, found, expected))


def test_without_native_operators_the_definition_runs():
    args = depthwise_backward_arguments(SHAPE, False)
    with torch.no_grad(), plain_torch():
        grad_x, grad_weight, grad_bias = depthwise_conv3x3_backward(*args)
    assert grad_x.shape == SHAPE
    assert grad_weight.shape == (5, 1, 3, 3)
    assert grad_bias.shape == (0,)


@pytest.mark.parametrize("bias", [True, False])
def test_on_the_cpu_it_is_the_convolution(bias):
    x, weight, offsets = draw(*SHAPE), draw(5, 1, 3, 3).requires_grad_(), draw(5) if bias else None
    out = depthwise_conv3x3(x, weight, offsets)
    assert torch.equal(out, F.conv2d(x, weight, offsets, padding=1, groups=5))
    assert "Convolution" in type(out.grad_fn).__name__
