"""The scores of attention between channels, straight from the projection of queries and keys, as one operator.

Source: Restormer's MDTA (CVPR 2022), whose attention AICR's C-GA divides into groups. The softmax scales scores by the
norms of queries and keys; both are sums over pixels, which one pass forms side by side.

In plain PyTorch queries and keys are written after the depthwise convolution and read again three times; the CUDA
kernel keeps them on the chip. On the CPU the operator runs its plain-torch definition.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula

from .. import _native
from .depthwise_conv3x3 import depthwise_conv3x3_backward
from .kernels import has_kernel
from .reference import depthwise_gram_backward_reference, depthwise_gram_reference

__all__ = ["depthwise_gram"]


def depthwise_gram(
    qk: Tensor, weight: Tensor, bias: Tensor | None = None, *, groups: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Per group q kᵀ, and |q|² and |k|² of each channel, for the halves q and k of a 3x3 depthwise convolution of qk.

    Args:
        qk: (B, 2C, H, W), queries before keys; float32, bfloat16, float16, on the CPU also float64. NCHW or
            channels-last; other strides cost a copy.
        weight: (2C, 1, 3, 3), in the dtype of ``qk`` or float32; stride 1, zeros around the picture.
        bias: (2C,), likewise, or None.
        groups: divides C; channels of different groups have no score.

    Returns:
        The scores (B, groups, C / groups, C / groups), of queries by keys, and the sums of squares over pixels of q and
        of k, (B, groups, C / groups) each; float32 (float64 for float64). q and k are rounded to the dtype of ``qk``;
        on CUDA no sum is, and the same input gives the same bits.

    Differentiable in all tensors; only they are kept for the backward pass, which is in plain torch but for the
    derivative of the convolution (:mod:`aicr_ext.ops.depthwise_conv3x3`). Autocast changes nothing: the operator runs
    in the dtype of ``qk``. Where the native library is not loaded, or a device has no kernel, the result is that of
    :func:`aicr_ext.ops.reference.depthwise_gram_reference`.

    Raises:
        RuntimeError: on CUDA, shapes, dtypes or devices other than these.
    """
    if not has_kernel(qk.device.type):
        return depthwise_gram_reference(qk, weight, bias, groups)
    return torch.ops.aicr_ext.depthwise_gram(qk, weight, bias, groups)


def _fake(qk: Tensor, weight: Tensor, bias: Tensor | None, groups: int) -> tuple[Tensor, Tensor, Tensor]:
    sums = torch.float64 if qk.dtype == torch.float64 else torch.float32
    batch, depth = qk.shape[0], qk.shape[1] // 2 // groups
    scores = qk.new_empty((batch, groups, depth, depth), dtype=sums)
    return scores, *(qk.new_empty((batch, groups, depth), dtype=sums) for _ in range(2))


def _save_inputs(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    qk, weight, bias, ctx.groups = inputs
    ctx.save_for_backward(qk, weight, bias)


def _backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
    qk, weight, bias = ctx.saved_tensors
    up = depthwise_gram_backward_reference(grads, qk, weight, bias, ctx.groups)
    grad_qk, grad_weight, grad_bias = depthwise_conv3x3_backward(up, qk, weight, bias is not None)
    return grad_qk, grad_weight.to(weight.dtype), None if bias is None else grad_bias.to(bias.dtype), None


def _flops(qk: Any, weight: Any, bias: Any, groups: int, *, out_shape: Any = None, **_: Any) -> int:
    """Two operations per tap and per pixel and score, as torch counts convolutions and products."""
    batch, channels, height, width = qk
    return batch * height * width * channels * (2 * 9 + channels // 2 // groups)


if _native.HAS_OPS:
    torch.library.register_kernel("aicr_ext::depthwise_gram", "cpu", depthwise_gram_reference)
    torch.library.register_fake("aicr_ext::depthwise_gram", _fake)
    torch.library.register_autograd("aicr_ext::depthwise_gram", _backward, setup_context=_save_inputs)
    register_flop_formula(torch.ops.aicr_ext.depthwise_gram)(_flops)
