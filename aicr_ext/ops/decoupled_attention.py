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
from .reference import decoupled_attention_backward_reference, decoupled_attention_reference

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

    Differentiable in all four arguments; the backward pass computes the intermediate maps again, in one native
    pass, or in plain torch where the gradients are to be differentiated again. Autocast changes nothing: the
    operator runs in the dtype its feature maps come in, which after a convolution under autocast is the lower
    one, and float32 weights may stay as they are.

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


def _fake_backward(
    grad: Tensor, attn: Tensor, value: Tensor, weight_row: Tensor, weight_col: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    sums = torch.float64 if attn.dtype == torch.float64 else torch.float32
    layout = preferred_layout(attn)
    return (
        torch.empty_like(attn, memory_format=layout),
        torch.empty_like(attn, memory_format=layout),
        weight_row.new_empty(weight_row.shape, dtype=sums),
        weight_col.new_empty(weight_col.shape, dtype=sums),
    )


def _backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    saved = ctx.saved_tensors  # once: a checkpoint hands each out one time only
    attn = saved[0]
    arguments = (grad, *saved)
    # Gradients that are differentiated again have to consist of operations that have derivatives.
    if torch.is_grad_enabled() or not has_kernel(attn.device.type):
        return decoupled_attention_backward_reference(*arguments, needs=ctx.needs_input_grad)
    gradients = torch.ops.aicr_ext.decoupled_attention_backward(*arguments)
    return tuple(
        g.to(like.dtype) if needed else None
        for g, like, needed in zip(gradients, saved, ctx.needs_input_grad, strict=True)
    )


def _flops(attn: Any, value: Any, weight_row: Any, weight_col: Any, *, out_shape: Any = None, **_: Any) -> int:
    """Two operations per tap of both convolutions, as torch counts convolutions; activations do not count."""
    batch, channels, height, width = attn
    return 2 * 2 * weight_row[3] * batch * channels * height * width


def _flops_backward(grad: Any, *forward: Any, out_shape: Any = None, **_: Any) -> int:
    """The two convolutions again, and for each the gradients of its map and of its weight."""
    return 3 * _flops(*forward)


if _native.HAS_OPS:
    torch.library.register_fake("aicr_ext::decoupled_attention", _fake)
    torch.library.register_autograd("aicr_ext::decoupled_attention", _backward, setup_context=_save_inputs)
    torch.library.register_fake("aicr_ext::decoupled_attention_backward", _fake_backward)
    register_flop_formula(torch.ops.aicr_ext.decoupled_attention)(_flops)
    register_flop_formula(torch.ops.aicr_ext.decoupled_attention_backward)(_flops_backward)
