"""The 3x3 depthwise convolution of channel attention, and its derivative as one operator.

Source: the convolution of queries, keys and values in Restormer's MDTA (CVPR 2022).

In plain PyTorch the gradients of map and weight are two passes over both maps, and the second of them is slow on CUDA.
The kernel reads both once and writes the gradient of the map. The convolution itself is torch's, but for inference in
bfloat16 on a CPU with AVX-512, where the loops of :func:`aicr_ext.ops.gated_depthwise_conv3x3` are faster.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import forward_ad
from torch.utils.flop_counter import register_flop_formula

from .. import _native
from .kernels import has_kernel
from .layout import preferred_layout
from .pointwise import is_traced
from .reference import depthwise_conv3x3_backward_reference, depthwise_conv3x3_reference

__all__ = ["depthwise_conv3x3", "depthwise_conv3x3_backward"]

#: Those that the vectors of its kernel hold, at least.
_CHANNELS = 32
#: Unless ATEN_CPU_CAPABILITY keeps torch's own kernels off it, as it does those of the operator.
_HAS_AVX512 = torch.backends.cpu.get_cpu_capability().startswith("AVX512")


def depthwise_conv3x3(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """:func:`torch.nn.functional.conv2d` with as many groups as channels.

    On CUDA its derivative is an operator. On a CPU, without gradients, it is one itself where that is faster: for
    channels-last maps of bfloat16, with AVX-512. Bits do not depend on the number of threads.

    Args:
        x: (B, C, H, W), any dtype, device and layout.
        weight: (C, 1, 3, 3) in the dtype of ``x``; stride 1, zeros around the picture.
        bias: (C,) likewise, or None.

    Returns:
        (B, C, H, W).
    """
    if torch.is_grad_enabled() and x.device.type == "cuda" and _is_native(x):
        return _DepthwiseConv3x3.apply(x, weight, bias)
    if _is_faster(x, weight):
        return torch.ops.aicr_ext.depthwise_conv3x3(x, weight, bias)
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


def _is_faster(x: Tensor, weight: Tensor) -> bool:
    """Whether the operator is faster than torch's convolution, and stands for it: no gradients, no graph."""
    if torch.is_grad_enabled() or is_traced(x) or forward_ad._current_level >= 0:
        return False
    fits = x.device.type == "cpu" and x.dim() == 4 and x.dtype == weight.dtype == torch.bfloat16
    if not fits or x.shape[1] < _CHANNELS or preferred_layout(x) != torch.channels_last:
        return False
    return _HAS_AVX512 and has_kernel("cpu") and not torch.is_autocast_enabled("cpu")


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


def _by_torch(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """The definition on CUDA, in the layout of the map."""
    return depthwise_conv3x3_reference(x, weight, bias).contiguous(memory_format=preferred_layout(x))


def _fake_forward(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    return torch.empty_like(x, memory_format=preferred_layout(x))


def _flops_forward(x: Any, weight: Any, bias: Any, *, out_shape: Any = None, **_: Any) -> int:
    """Two operations per tap, as torch counts convolutions."""
    batch, channels, height, width = x
    return 2 * 9 * batch * channels * height * width


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
    """Those of the gradient of the map, and of that of the weight."""
    return 2 * _flops_forward(x, weight, None)


if _native.HAS_OPS:
    torch.library.register_kernel("aicr_ext::depthwise_conv3x3", "cuda", _by_torch)
    torch.library.register_fake("aicr_ext::depthwise_conv3x3", _fake_forward)
    torch.library.register_autograd(
        "aicr_ext::depthwise_conv3x3", _DepthwiseConv3x3.backward, setup_context=_DepthwiseConv3x3.setup_context
    )
    register_flop_formula(torch.ops.aicr_ext.depthwise_conv3x3)(_flops_forward)
    torch.library.register_kernel("aicr_ext::depthwise_conv3x3_backward", "cpu", _definition)
    torch.library.register_fake("aicr_ext::depthwise_conv3x3_backward", _fake)
    register_flop_formula(torch.ops.aicr_ext.depthwise_conv3x3_backward)(_flops)
