"""Decoupled depthwise spatial attention: the core of S-DA as one operator.

Source: "All-in-One Image Compression and Restoration", WACV 2025, eq. 4-5.

Eager PyTorch moves a feature map eleven times for this chain of five operations; the native kernels read
``attn`` and ``value`` once and write the result once.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula

from .. import _native
from .kernels import has_kernel
from .layout import preferred_layout
from .reference import decoupled_attention_reference

__all__ = ["decoupled_attention"]


def decoupled_attention(attn: Tensor, value: Tensor, weight_row: Tensor, weight_col: Tensor) -> Tensor:
    """dwconv_{K×1}(GELU(dwconv_{1×K}(GELU(attn)))) ⊙ value, with zero padding and the exact (erf) GELU.

    Args:
        attn: (B, C, H, W); float32, bfloat16, float16, on the CPU also float64. NCHW or channels-last;
            other strides cost a copy.
        value: shape, dtype and device of ``attn``.
        weight_row: (C, 1, 1, K), K = 3, 5 or 7; in the dtype of ``attn`` or float32.
        weight_col: (C, 1, K, 1), likewise.

    Returns:
        (B, C, H, W) in the dtype and the memory layout of ``attn``. Sums are in float32 (float64 for
        float64), and each element is rounded to the dtype once; the intermediate maps are not.

    Differentiable in all four arguments; the backward pass computes the intermediate maps again, in plain
    torch. Autocast changes nothing: the operator runs in the dtype its feature maps come in, which after a
    convolution under autocast is the lower one, and float32 weights may stay as they are.

    Where the native library is not loaded, or a device has no kernel, the result is that of
    :func:`aicr_ext.ops.reference.decoupled_attention_reference`.

    Raises:
        RuntimeError: shapes, dtypes or devices other than these.
    """
    if not has_kernel(attn.device.type):
        return decoupled_attention_reference(attn, value, weight_row, weight_col)
    return torch.ops.aicr_ext.decoupled_attention(attn, value, weight_row, weight_col)


def _fake(attn: Tensor, value: Tensor, weight_row: Tensor, weight_col: Tensor) -> Tensor:
    return torch.empty_like(attn, memory_format=preferred_layout(attn))


def _save_inputs(ctx: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
    ctx.save_for_backward(*inputs)


def _backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    """Gradients from the saved inputs: the forward pass again, then each operation's own derivative."""
    attn, value, weight_row, weight_col = ctx.saved_tensors
    needs_attn, needs_value, needs_row, needs_col = ctx.needs_input_grad
    channels, taps = attn.shape[1], weight_row.shape[3]
    row, col = weight_row.to(attn.dtype), weight_col.to(attn.dtype)
    row_padding, col_padding = [0, taps // 2], [taps // 2, 0]

    def depthwise(x: Tensor, weight: Tensor, padding: list[int]) -> Tensor:
        return torch.ops.aten.convolution(x, weight, None, [1, 1], padding, [1, 1], False, [0, 0], channels)

    def depthwise_backward(
        grad: Tensor, x: Tensor, weight: Tensor, padding: list[int], needs: list[bool]
    ) -> tuple[Tensor | None, Tensor | None]:
        return torch.ops.aten.convolution_backward(
            grad, x, weight, None, [1, 1], padding, [1, 1], False, [0, 0], channels, [*needs, False]
        )[:2]

    activated = torch.ops.aten.gelu(attn)
    rows = depthwise(activated, row, row_padding)
    activated_rows = torch.ops.aten.gelu(rows)

    grad_attn = grad_value = grad_row = grad_col = None
    if needs_value:
        grad_value = grad * depthwise(activated_rows, col, col_padding)
    if needs_attn or needs_row or needs_col:
        needs_rows = needs_attn or needs_row
        grad_rows, grad_col = depthwise_backward(
            grad * value, activated_rows, col, col_padding, [needs_rows, needs_col]
        )
        if needs_rows:
            grad_rows = torch.ops.aten.gelu_backward(grad_rows, rows)
            grad_attn, grad_row = depthwise_backward(grad_rows, activated, row, row_padding, [needs_attn, needs_row])
        if needs_attn:
            grad_attn = torch.ops.aten.gelu_backward(grad_attn, attn)
    return (
        grad_attn,
        grad_value,
        grad_row.to(weight_row.dtype) if grad_row is not None else None,
        grad_col.to(weight_col.dtype) if grad_col is not None else None,
    )


def _flops(attn: Any, value: Any, weight_row: Any, weight_col: Any, *, out_shape: Any = None, **_: Any) -> int:
    """Two operations per tap of both convolutions, as torch counts convolutions; activations do not count."""
    batch, channels, height, width = attn
    return 2 * 2 * weight_row[3] * batch * channels * height * width


if _native.HAS_OPS:
    torch.library.register_fake("aicr_ext::decoupled_attention", _fake)
    torch.library.register_autograd("aicr_ext::decoupled_attention", _backward, setup_context=_save_inputs)
    register_flop_formula(torch.ops.aicr_ext.decoupled_attention)(_flops)
