"""Layer norm over the channels of a feature map, as one operator with one derivative.

Source: Restormer's ``BiasFree_LayerNorm`` (AICR uses it) and ``WithBias_LayerNorm``, NAFNet's ``LayerNorm2d``.

In plain PyTorch forward and backward are some fifteen passes over float32 copies of the map; the native kernels
read ``x`` (and the gradient) once and write the result once.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from .. import _native
from .kernels import has_kernel
from .layout import preferred_layout
from .reference import layer_norm2d_backward_reference, layer_norm2d_reference

__all__ = ["layer_norm2d"]


def layer_norm2d(
    x: Tensor, weight: Tensor, eps: float = 1e-5, *, bias: Tensor | None = None, subtract_mean: bool = False
) -> Tensor:
    """x / sqrt(var(x) + eps) * weight (+ bias), or (x - mean(x)) / ... with ``subtract_mean``; over channels.

    Args:
        x: (B, C, H, W); float32, bfloat16, float16, on the CPU also float64. NCHW or channels-last; other
            strides cost a copy.
        weight: (C,), in the dtype of ``x`` or float32.
        eps: added to the variance, which is that of the population (divided by C).
        bias: (C,) likewise, or None.
        subtract_mean: without it the mean enters the variance only, as in Restormer's bias-free norm.

    Returns:
        (B, C, H, W) in the dtype and the memory layout of ``x``. Statistics and arithmetic are in float32
        (float64 for float64), and each element is rounded to the dtype once.

    Differentiable in ``x``, ``weight`` and ``bias``; only ``x`` and ``weight`` are kept for the backward pass, which
    forms the statistics again. Autocast changes nothing: the operator runs in the dtype of ``x``.

    Where the native library is not loaded, or a device has no kernel, the result is that of
    :func:`aicr_ext.ops.reference.layer_norm2d_reference`.

    Raises:
        RuntimeError: shapes, dtypes or devices other than these; ``eps`` negative or not finite.
    """
    if not has_kernel(x.device.type):
        return layer_norm2d_reference(x, weight, eps, bias=bias, subtract_mean=subtract_mean)
    return torch.ops.aicr_ext.layer_norm2d(x, weight, bias, subtract_mean, eps)


def _fake(x: Tensor, weight: Tensor, bias: Tensor | None, subtract_mean: bool, eps: float) -> Tensor:
    return torch.empty_like(x, memory_format=preferred_layout(x))


def _fake_backward(
    grad: Tensor, x: Tensor, weight: Tensor, with_bias: bool, subtract_mean: bool, eps: float
) -> tuple[Tensor, Tensor, Tensor]:
    sums = torch.float64 if x.dtype == torch.float64 else torch.float32
    return (
        torch.empty_like(x, memory_format=preferred_layout(x)),
        x.new_empty(x.shape[1], dtype=sums),
        x.new_empty(x.shape[1] if with_bias else 0, dtype=sums),
    )


def _save_inputs(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    x, weight, bias, ctx.subtract_mean, ctx.eps = inputs
    ctx.bias_dtype = None if bias is None else bias.dtype
    ctx.save_for_backward(x, weight)


def _backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    x, weight = ctx.saved_tensors
    arguments = (grad, x, weight, ctx.bias_dtype is not None, ctx.subtract_mean, ctx.eps)
    # Gradients that are differentiated again have to consist of operations that have derivatives.
    if torch.is_grad_enabled() or not has_kernel(x.device.type):
        grad_x, grad_weight, grad_bias = layer_norm2d_backward_reference(*arguments)
    else:
        grad_x, grad_weight, grad_bias = torch.ops.aicr_ext.layer_norm2d_backward(*arguments)
    grad_bias = None if ctx.bias_dtype is None else grad_bias.to(ctx.bias_dtype)
    return grad_x, grad_weight.to(weight.dtype), grad_bias, None, None


if _native.HAS_OPS:
    torch.library.register_fake("aicr_ext::layer_norm2d", _fake)
    torch.library.register_fake("aicr_ext::layer_norm2d_backward", _fake_backward)
    torch.library.register_autograd("aicr_ext::layer_norm2d", _backward, setup_context=_save_inputs)
