"""The 3x3 depthwise convolution and the gate behind it, as the gated feed-forward has them, in one operator.

Source: Restormer's GDFN (CVPR 2022), NAFNet's simple gate (ECCV 2022).

Between the two in plain PyTorch lies a map of twice the width of the result, which is written and read again.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula

from .. import _native
from .kernels import has_kernel
from .layout import preferred_layout
from .reference import gated_depthwise_conv3x3_backward_reference, gated_depthwise_conv3x3_reference

__all__ = ["gated_depthwise_conv3x3"]


def gated_depthwise_conv3x3(
    x: Tensor, weight: Tensor, bias: Tensor | None = None, *, activation: str | None = "gelu"
) -> Tensor:
    """GELU(a) ⊙ b, or a ⊙ b, for the halves a and b of the channels of a 3x3 depthwise convolution.

    Args:
        x: (B, 2C, H, W); float32, bfloat16, float16, on the CPU also float64. NCHW or channels-last; other
            strides cost a copy.
        weight: (2C, 1, 3, 3), in the dtype of ``x`` or float32; stride 1, zeros around the picture.
        bias: (2C,), likewise, or None.
        activation: ``"gelu"`` (exact, by erf), or None for the plain product.

    Returns:
        (B, C, H, W) in the dtype and the memory layout of ``x``. Sums and gate are in float32 (float64 for float64),
        and each element is rounded to the dtype once.

    Differentiable in all tensors; only they are kept for the backward pass, which convolves again: in one native pass,
    or in plain torch where the gradients are to be differentiated again. Autocast changes nothing: the operator runs in
    the dtype of ``x``, and float32 weights may stay as they are. Where the native library is not loaded, or a device
    has no kernel, the result is that of :func:`aicr_ext.ops.reference.gated_depthwise_conv3x3_reference`.

    Raises:
        RuntimeError: shapes, dtypes or devices other than these.
        ValueError: another activation.
    """
    if activation not in ("gelu", None):
        raise ValueError(f"activation must be 'gelu' or None, got {activation!r}")
    gelu = activation == "gelu"
    if not has_kernel(x.device.type):
        return gated_depthwise_conv3x3_reference(x, weight, bias, gelu)
    return torch.ops.aicr_ext.gated_depthwise_conv3x3(x, weight, bias, gelu)


def _fake(x: Tensor, weight: Tensor, bias: Tensor | None, gelu: bool) -> Tensor:
    size = (x.shape[0], x.shape[1] // 2, *x.shape[2:])
    return torch.empty(size, dtype=x.dtype, device=x.device, memory_format=preferred_layout(x))


def _fake_backward(
    grad: Tensor, x: Tensor, weight: Tensor, bias: Tensor | None, gelu: bool
) -> tuple[Tensor, Tensor, Tensor]:
    sums = torch.float64 if x.dtype == torch.float64 else torch.float32
    return (
        torch.empty_like(x, memory_format=preferred_layout(x)),
        weight.new_empty(weight.shape, dtype=sums),
        x.new_empty(x.shape[1] if bias is not None else 0, dtype=sums),
    )


def _save_inputs(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    x, weight, bias, ctx.gelu = inputs
    ctx.save_for_backward(x, weight, bias)


def _backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    x, weight, bias = ctx.saved_tensors
    # Gradients that are differentiated again have to consist of operations that have derivatives.
    again = torch.is_grad_enabled() or not has_kernel(x.device.type)
    backward = (
        gated_depthwise_conv3x3_backward_reference if again else torch.ops.aicr_ext.gated_depthwise_conv3x3_backward
    )
    grad_x, grad_weight, grad_bias = backward(grad, x, weight, bias, ctx.gelu)
    return grad_x, grad_weight.to(weight.dtype), None if bias is None else grad_bias.to(bias.dtype), None


def _flops(x: Any, weight: Any, bias: Any, gelu: bool, *, out_shape: Any = None, **_: Any) -> int:
    """Two operations per tap, as torch counts convolutions; gates do not count."""
    batch, channels, height, width = x
    return 2 * 9 * batch * channels * height * width


def _flops_backward(grad: Any, x: Any, weight: Any, bias: Any, gelu: bool, *, out_shape: Any = None, **_: Any) -> int:
    """The convolution again, and the gradients of its map and its weight."""
    return 3 * _flops(x, weight, bias, gelu)


if _native.HAS_OPS:
    torch.library.register_fake("aicr_ext::gated_depthwise_conv3x3", _fake)
    torch.library.register_fake("aicr_ext::gated_depthwise_conv3x3_backward", _fake_backward)
    torch.library.register_autograd("aicr_ext::gated_depthwise_conv3x3", _backward, setup_context=_save_inputs)
    register_flop_formula(torch.ops.aicr_ext.gated_depthwise_conv3x3)(_flops)
    register_flop_formula(torch.ops.aicr_ext.gated_depthwise_conv3x3_backward)(_flops_backward)
