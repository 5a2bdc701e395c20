"""The 3x3 depthwise convolution of channel attention in training, and its derivative as one operator.

Source: the convolution of queries, keys and values in Restormer's MDTA (CVPR 2022).

In plain PyTorch the gradients of map and weight are two passes over both maps, and the second of them is slow on CUDA.
The kernel reads both once and writes the gradient of the map. The convolution itself is torch's.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula

from .. import _native
from .kernels import has_kernel
from .layout import preferred_layout
from .reference import depthwise_conv3x3_backward_reference, depthwise_conv3x3_reference

__all__ = ["depthwise_conv3x3", "depthwise_conv3x3_backward"]


def depthwise_conv3x3(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """:func:`torch.nn.functional.conv2d` with as many groups as channels; on CUDA its derivative is the operator.

    Args:
        x: (B, C, H, W), any dtype, device and layout.
        weight: (C, 1, 3, 3) in the dtype of ``x``; stride 1, zeros around the picture.
        bias: (C,) likewise, or None.

    Returns:
        (B, C, H, W).
    """
    if torch.is_grad_enabled() and x.device.type == "cuda" and _is_native(x):
        return _DepthwiseConv3x3.apply(x, weight, bias)
    return F.conv2d(x, weight, bias, padding=1, groups=x.shape[1])


def depthwise_conv3x3_backward(
    grad: Tensor, x: Tensor, weight: Tensor, with_bias: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of the map, the weight and the bias of a 3x3 depthwise convolution.

    Args:
        grad: of the result, in shape and dtype of ``x``.
        x: (B, C, H, W); float32, bfloat16, float16, float64. NCHW or channels-last; other strides cost a copy.
        weight: (C, 1, 3, 3), in the dtype of ``x`` or float32.
        with_bias: without it the last gradient is empty.

    Returns:
        The gradient of ``x`` in its dtype and memory layout, and those of weight and bias in float32 (float64 for
        float64). On CUDA all sums are in float32, and the same input gives the same bits; on the CPU, for float64,
        where gradients are to be differentiated again and where the native library is not loaded, this is
        :func:`aicr_ext.ops.reference.depthwise_conv3x3_backward_reference`.

    Raises:
        RuntimeError: shapes, dtypes or devices other than these.
    """
    if torch.is_grad_enabled() or not _is_native(x):
        return depthwise_conv3x3_backward_reference(grad, x, weight, with_bias)
    return torch.ops.aicr_ext.depthwise_conv3x3_backward(grad, x, weight, with_bias)


def _is_native(x: Tensor) -> bool:
    return has_kernel(x.device.type) and x.dtype != torch.float64


class _DepthwiseConv3x3(torch.autograd.Function):
    @staticmethod
    def forward(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return depthwise_conv3x3_reference(x, weight, bias)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        x, weight, bias = inputs
        ctx.bias_dtype = None if bias is None else bias.dtype
        ctx.save_for_backward(x, weight)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        with_bias = ctx.bias_dtype is not None
        grad_x, grad_weight, grad_bias = depthwise_conv3x3_backward(grad, x, weight, with_bias)
        return grad_x, grad_weight.to(weight.dtype), grad_bias.to(ctx.bias_dtype) if with_bias else None


def _definition(grad: Tensor, x: Tensor, weight: Tensor, with_bias: bool) -> tuple[Tensor, Tensor, Tensor]:
    """The definition on the CPU, its gradient of the map in the layout of the map."""
    grad_x, *sums = depthwise_conv3x3_backward_reference(grad, x, weight, with_bias)
    return grad_x.contiguous(memory_format=preferred_layout(x)), *sums


def _fake(grad: Tensor, x: Tensor, weight: Tensor, with_bias: bool) -> tuple[Tensor, Tensor, Tensor]:
    sums = torch.float64 if x.dtype == torch.float64 else torch.float32
    return (
        torch.empty_like(x, memory_format=preferred_layout(x)),
        weight.new_empty(weight.shape, dtype=sums),
        x.new_empty(x.shape[1] if with_bias else 0, dtype=sums),
    )


def _flops(grad: Any, x: Any, weight: Any, with_bias: bool, *, out_shape: Any = None, **_: Any) -> int:
    """Two operations per tap for the gradient of the map, and for that of the weight, as torch counts convolutions."""
    batch, channels, height, width = x
    return 2 * 2 * 9 * batch * channels * height * width


if _native.HAS_OPS:
    torch.library.register_kernel("aicr_ext::depthwise_conv3x3_backward", "cpu", _definition)
    torch.library.register_fake("aicr_ext::depthwise_conv3x3_backward", _fake)
    register_flop_formula(torch.ops.aicr_ext.depthwise_conv3x3_backward)(_flops)
