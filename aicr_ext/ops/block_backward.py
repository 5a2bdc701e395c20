"""Derivatives of the block operators from their arguments alone: the forward pass again, then backwards through it.

Each function takes the gradient of the result and the arguments of ``composed_*`` in :mod:`aicr_ext.ops.blocks`, and
returns the gradient of every tensor among them, in their order; an empty tensor for one that is None. Products over
pixels are matrix products of rows, (B, H·W, C), whose sums have one order for any number of threads. On a CPU the only
gradient that depends on that number is the weight's and bias's of ``qkv_dwconv``, which is oneDNN's.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .block_parts import as_map, fitting, fold, normed, pointwise_backward, rows, wide
from .channel_gram import channel_gram
from .decoupled_attention import decoupled_attention
from .depthwise_conv3x3 import depthwise_conv3x3_backward
from .gated_depthwise_conv3x3 import gated_depthwise_conv3x3
from .kernels import has_kernel
from .pointwise import pointwise_convolution
from .reference import (
    decoupled_attention_backward_reference,
    depthwise_conv3x3_reference,
    fold_channel_attention_backward_reference,
    fold_softmax_backward,
    gated_depthwise_conv3x3_backward_reference,
    layer_norm2d_backward_reference,
)

__all__ = ["gated_convolutions_backward", "spatial_attention_backward", "transposed_attention_backward"]


def transposed_attention_backward(
    grad: Tensor,
    x: Tensor,
    context: Tensor | None,
    norm: Tensor | None,
    norm_bias: Tensor | None,
    qkv: Tensor,
    qkv_bias: Tensor | None,
    qkv_dwconv: Tensor | None,
    qkv_dwconv_bias: Tensor | None,
    temperature: Tensor | None,
    project_out: Tensor,
    project_out_bias: Tensor | None,
    groups: int,
    scale: float | None,
    subtract_mean: bool,
    eps: float,
    residual: bool,
    compute: torch.dtype | None,
) -> list[Tensor]:
    low, c = compute or x.dtype, x.shape[1]
    # (map, its norm, which projections it is the input of)
    inputs = [(x, slice(0, 3 * c))] if context is None else [(x, slice(0, c)), (context, slice(c, 3 * c))]
    seen = [normed(t, norm, norm_bias, subtract_mean, eps).to(low) for t, _ in inputs]
    projected = torch.cat(
        [
            pointwise_convolution(t, qkv[part].to(low), None if qkv_bias is None else qkv_bias[part].to(low))
            for t, (_, part) in zip(seen, inputs, strict=True)
        ],
        1,
    )
    mixed = projected
    if qkv_dwconv is not None:
        mixed = depthwise_conv3x3_reference(projected, qkv_dwconv, qkv_dwconv_bias)
    q, k, v = rows(mixed).split(c, 2)
    sums = channel_gram(*mixed[:, : 2 * c].split(c, 1), groups=groups)
    folded = fold(*sums, temperature, project_out, scale).to(low)

    up = rows(grad.to(low))
    grad_v = up @ folded
    grad_scores, grad_q_norm, grad_k_norm, grad_temperature, grad_out = _fold_backward(
        wide(up.transpose(1, 2) @ v), *sums, temperature, project_out, scale
    )

    q, k = (t.unflatten(2, (groups, -1)).transpose(1, 2) for t in (q, k))  # (B, groups, H·W, C / groups)
    grad_q = k @ grad_scores.transpose(2, 3).to(low)
    grad_k = q @ grad_scores.to(low)
    if scale is None:
        grad_q = grad_q + q * (2 * grad_q_norm).to(low)[:, :, None]
        grad_k = grad_k + k * (2 * grad_k_norm).to(low)[:, :, None]
    grad_mixed = torch.cat([t.transpose(1, 2).flatten(2) for t in (grad_q, grad_k)] + [grad_v], 2)

    grad_depthwise = grad_depthwise_bias = None
    grad_projected = grad_mixed
    if qkv_dwconv is not None:
        grad_map, grad_depthwise, grad_depthwise_bias = depthwise_conv3x3_backward(
            as_map(grad_mixed, x), projected, fitting(qkv_dwconv, low), qkv_dwconv_bias is not None
        )
        grad_projected = rows(grad_map)

    grad_inputs, grad_qkv, norms = [], [], []
    for t, (source, part) in zip(seen, inputs, strict=True):
        grad_t, grad_weight = pointwise_backward(grad_projected[:, :, part], rows(t), qkv[part])
        grad_source, *of_norm = norm_backward(grad_t, source, norm, norm_bias, subtract_mean, eps)
        grad_inputs.append(grad_source)
        grad_qkv.append(grad_weight)
        norms.append(of_norm)
    grad_norm, grad_norm_bias = (sum(parts[1:], parts[0]) for parts in zip(*norms, strict=True))
    grad_x = grad_inputs[0] + grad.to(x.dtype) if residual else grad_inputs[0]
    pairs = (
        (x, grad_x),
        (context, grad_inputs[-1]),
        (norm, grad_norm),
        (norm_bias, grad_norm_bias),
        (qkv, torch.cat(grad_qkv)),
        (qkv_bias, wide(grad_projected).sum((0, 1))),
        (qkv_dwconv, grad_depthwise),
        (qkv_dwconv_bias, grad_depthwise_bias),
        (temperature, grad_temperature),
        (project_out, grad_out),
        (project_out_bias, wide(up).sum((0, 1))),
    )
    return [_like(tensor, gradient, x) for tensor, gradient in pairs]


def _fold_backward(
    grad: Tensor,
    scores: Tensor,
    q_norm: Tensor,
    k_norm: Tensor,
    temperature: Tensor | None,
    project_out: Tensor,
    scale: float | None,
) -> tuple[Tensor | None, ...]:
    """Gradients of products, both squared norms, temperature and projection, from that of the result of ``fold``.

    Those of the norms are None where there is a scale in their place.
    """
    if temperature is None:
        temperature = scores.new_ones(scores.shape[1])
    if scale is None:
        return fold_channel_attention_backward_reference(grad, scores, q_norm, k_norm, temperature, project_out)
    grad_scores, *of_weights = fold_softmax_backward(grad, scores * scale, temperature, project_out)
    return grad_scores * scale, None, None, *of_weights


def spatial_attention_backward(
    grad: Tensor,
    x: Tensor,
    norm: Tensor,
    project_attn: Tensor,
    project_attn_bias: Tensor | None,
    dwconv_row: Tensor,
    dwconv_col: Tensor,
    project_value: Tensor,
    project_value_bias: Tensor | None,
    project_out: Tensor,
    project_out_bias: Tensor | None,
    eps: float,
    compute: torch.dtype | None,
) -> list[Tensor]:
    low = compute or x.dtype
    t = normed(x, norm, None, False, eps).to(low)
    attn, value = (
        pointwise_convolution(t, weight.to(low), None if bias is None else bias.to(low))
        for weight, bias in ((project_attn, project_attn_bias), (project_value, project_value_bias))
    )
    row, col = fitting(dwconv_row, low), fitting(dwconv_col, low)
    gated = decoupled_attention(attn, value, row, col)

    up = rows(grad.to(low))
    grad_gated, grad_out = pointwise_backward(up, rows(gated), project_out)
    native = has_kernel(x.device.type)
    backward = torch.ops.aicr_ext.decoupled_attention_backward if native else decoupled_attention_backward_reference
    grad_attn, grad_value, grad_row, grad_col = backward(as_map(grad_gated, x), attn, value, row, col)
    grad_attn, grad_value = rows(grad_attn), rows(grad_value)
    t = rows(t)
    through_attn, grad_to_attn = pointwise_backward(grad_attn, t, project_attn)
    through_value, grad_to_value = pointwise_backward(grad_value, t, project_value)
    grad_x, grad_norm, _ = norm_backward(through_attn + through_value, x, norm, None, False, eps)
    pairs = (
        (x, grad_x + grad.to(x.dtype)),
        (norm, grad_norm),
        (project_attn, grad_to_attn),
        (project_attn_bias, wide(grad_attn).sum((0, 1))),
        (dwconv_row, grad_row),
        (dwconv_col, grad_col),
        (project_value, grad_to_value),
        (project_value_bias, wide(grad_value).sum((0, 1))),
        (project_out, grad_out),
        (project_out_bias, wide(up).sum((0, 1))),
    )
    return [_like(tensor, gradient, x) for tensor, gradient in pairs]


def gated_convolutions_backward(
    grad: Tensor,
    x: Tensor,
    norm: Tensor | None,
    norm_bias: Tensor | None,
    project_in: Tensor,
    project_in_bias: Tensor | None,
    dwconv: Tensor,
    dwconv_bias: Tensor | None,
    project_out: Tensor,
    project_out_bias: Tensor | None,
    gelu: bool,
    subtract_mean: bool,
    eps: float,
    residual: bool,
    compute: torch.dtype | None,
) -> list[Tensor]:
    low = compute or x.dtype
    t = normed(x, norm, norm_bias, subtract_mean, eps).to(low)
    projected = pointwise_convolution(
        t, project_in.to(low), None if project_in_bias is None else project_in_bias.to(low)
    )
    weight, bias = fitting(dwconv, low), None if dwconv_bias is None else fitting(dwconv_bias, low)
    gated = gated_depthwise_conv3x3(projected, weight, bias, activation="gelu" if gelu else None)

    up = rows(grad.to(low))
    grad_gated, grad_out = pointwise_backward(up, rows(gated), project_out)
    native = has_kernel(x.device.type)
    backward = (
        torch.ops.aicr_ext.gated_depthwise_conv3x3_backward if native else gated_depthwise_conv3x3_backward_reference
    )
    grad_projected, grad_dwconv, grad_dwconv_bias = backward(as_map(grad_gated, x), projected, weight, bias, gelu)
    grad_projected = rows(grad_projected)
    grad_t, grad_in = pointwise_backward(grad_projected, rows(t), project_in)
    grad_x, grad_norm, grad_norm_bias = norm_backward(grad_t, x, norm, norm_bias, subtract_mean, eps)
    pairs = (
        (x, grad_x + grad.to(x.dtype) if residual else grad_x),
        (norm, grad_norm),
        (norm_bias, grad_norm_bias),
        (project_in, grad_in),
        (project_in_bias, wide(grad_projected).sum((0, 1))),
        (dwconv, grad_dwconv),
        (dwconv_bias, grad_dwconv_bias),
        (project_out, grad_out),
        (project_out_bias, wide(up).sum((0, 1))),
    )
    return [_like(tensor, gradient, x) for tensor, gradient in pairs]


def norm_backward(
    grad: Tensor, x: Tensor, weight: Tensor | None, bias: Tensor | None, subtract_mean: bool, eps: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of the map x, of the weight and of the bias of its norm, from rows (B, H·W, C)."""
    grad = as_map(grad, x).to(x.dtype)
    if weight is None:
        return grad, x.new_empty(0), x.new_empty(0)
    native = has_kernel(x.device.type)
    backward = torch.ops.aicr_ext.layer_norm2d_backward if native else layer_norm2d_backward_reference
    return backward(grad, x, weight, bias is not None, subtract_mean, eps)


def _like(tensor: Tensor | None, gradient: Tensor | None, x: Tensor) -> Tensor:
    """The gradient in the dtype, shape and layout of its tensor; empty for no tensor."""
    if tensor is None:
        return x.new_empty(0)
    return torch.empty_like(tensor, memory_format=torch.contiguous_format).copy_(gradient.reshape(tensor.shape))
