"""The softmax of attention between channels, folded into the projection that follows it.

Every pixel of a picture is multiplied by the same attention map A and then by W_out: with W' = W_out · blockdiag(A),
which is one small matrix per picture, the product A·v never exists. In plain PyTorch this takes a dozen calls, each
far longer than its arithmetic; the CUDA kernel is one. On the CPU the operator runs its plain-torch definition.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula

from .. import _native
from .kernels import has_kernel
from .reference import fold_channel_attention_backward_reference, fold_channel_attention_reference

__all__ = ["fold_channel_attention"]


def fold_channel_attention(
    scores: Tensor, q_norm: Tensor, k_norm: Tensor, temperature: Tensor, project_out: Tensor
) -> Tensor:
    """W_out · blockdiag(A), one matrix per picture, with A = softmax over keys of scores / (|q| |k|) · temperature.

    Args:
        scores: (B, groups, C / groups, C / groups), queries by keys; float32, on the CPU also float64. On CUDA
            C / groups is at most 2048.
        q_norm, k_norm: sums of squares (B, groups, C / groups), in the dtype of ``scores``; at least 1e-24 is taken.
        temperature: ``groups`` values in any shape, in the dtype of ``project_out`` or float32.
        project_out: (N, C, 1, 1), the weight of a 1x1 convolution; float32, bfloat16, float16, on the CPU also float64.

    Returns:
        (B, N, C) in the dtype of ``scores``, in which all arithmetic is.

    Differentiable in all arguments, in plain torch. Autocast changes nothing. Where the native library is not loaded,
    or a device has no kernel, the result is that of
    :func:`aicr_ext.ops.reference.fold_channel_attention_reference`.

    Raises:
        RuntimeError: on CUDA, shapes, dtypes or devices other than these.
    """
    if not has_kernel(scores.device.type):
        return fold_channel_attention_reference(scores, q_norm, k_norm, temperature, project_out)
    return torch.ops.aicr_ext.fold_channel_attention(scores, q_norm, k_norm, temperature, project_out)


def _fake(scores: Tensor, q_norm: Tensor, k_norm: Tensor, temperature: Tensor, project_out: Tensor) -> Tensor:
    return scores.new_empty((scores.shape[0], *project_out.shape[:2]))


def _save_inputs(ctx: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
    ctx.save_for_backward(*inputs)


def _backward(ctx: Any, grad: Tensor) -> tuple[Tensor, ...]:
    gradients = fold_channel_attention_backward_reference(grad, *ctx.saved_tensors)
    return tuple(g.to(like.dtype) for g, like in zip(gradients, ctx.saved_tensors, strict=True))


def _flops(scores: Any, q_norm: Any, k_norm: Any, temperature: Any, project_out: Any, **_: Any) -> int:
    """Of the product, as torch counts it; the softmax does not count."""
    return 2 * scores[0] * project_out[0] * project_out[1] * scores[3]


if _native.HAS_OPS:
    torch.library.register_kernel("aicr_ext::fold_channel_attention", "cpu", fold_channel_attention_reference)
    torch.library.register_fake("aicr_ext::fold_channel_attention", _fake)
    torch.library.register_autograd("aicr_ext::fold_channel_attention", _backward, setup_context=_save_inputs)
    register_flop_formula(torch.ops.aicr_ext.fold_channel_attention)(_flops)
