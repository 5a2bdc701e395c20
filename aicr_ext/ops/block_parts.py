"""What blocks and derivatives share: norms, dtypes, maps as rows, and the way from scores to one matrix."""

from __future__ import annotations

import torch
from torch import Tensor

from aicr_ext.ops.layer_norm2d import layer_norm2d
from aicr_ext.ops.reference import fold_channel_attention_reference, fold_softmax

__all__ = ["Projection", "as_map", "fitting", "fold", "normed", "pointwise_backward", "rows", "wide"]

#: A convolution's weight and bias.
Projection = tuple[Tensor, Tensor | None]


def normed(x: Tensor, weight: Tensor | None, bias: Tensor | None, subtract_mean: bool, eps: float) -> Tensor:
    """The norm of x, or x where there is none."""
    return x if weight is None else layer_norm2d(x, weight, eps, bias=bias, subtract_mean=subtract_mean)


def fitting(weight: Tensor, low: torch.dtype) -> Tensor:
    """A depthwise weight as the operators take it: float32 may stay as it is."""
    return weight if weight.dtype == torch.float32 and low != torch.float64 else weight.to(low)


def wide(t: Tensor) -> Tensor:
    return t if t.dtype == torch.float64 else t.float()


def fold(
    scores: Tensor,
    q_norm: Tensor,
    k_norm: Tensor,
    temperature: Tensor | None,
    project_out: Tensor,
    scale: float | None,
) -> Tensor:
    """W_out · blockdiag(A), one (D, C) matrix per picture, so that A·v never exists as a tensor."""
    if temperature is None:
        temperature = scores.new_ones(scores.shape[1])
    if scale is None:
        return fold_channel_attention_reference(scores, q_norm, k_norm, temperature, project_out)
    return fold_softmax(scores * scale, temperature, project_out)


def rows(t: Tensor) -> Tensor:
    """(B, C, H, W) as (B, H·W, C): a view of a channels-last map."""
    return t.permute(0, 2, 3, 1).flatten(1, 2)


def as_map(t: Tensor, like: Tensor) -> Tensor:
    """(B, H·W, C) as (B, C, H, W) of the height and width of ``like``, channels-last."""
    return t.unflatten(1, like.shape[2:]).permute(0, 3, 1, 2)


def pointwise_backward(grad: Tensor, x: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """Gradients of the rows x (B, H·W, C) and of the weight (D, C, 1, 1) of a 1x1 convolution."""
    matrix = weight.flatten(1).to(x.dtype)
    grad_weight = wide(grad.transpose(1, 2) @ x).sum(0)
    return grad @ matrix, grad_weight.reshape(weight.shape)
