"""Plain-torch definitions of the operators that have native kernels.

Each function here is the specification of the operator of its name: tests compare kernels with it, and it
runs where no kernel is available. Autocast changes those of single operators as little as it changes kernels.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from .autocast import outside_autocast

__all__ = [
    "channel_gram_reference",
    "decoupled_attention_backward_reference",
    "decoupled_attention_reference",
    "depthwise_conv3x3_backward_reference",
    "depthwise_conv3x3_reference",
    "depthwise_gram_backward_reference",
    "depthwise_gram_reference",
    "fold_channel_attention_backward_reference",
    "fold_channel_attention_reference",
    "gated_convolutions_reference",
    "gated_depthwise_conv3x3_backward_reference",
    "gated_depthwise_conv3x3_reference",
    "gelu_gate_backward_reference",
    "gelu_gate_reference",
    "layer_norm2d_backward_reference",
    "layer_norm2d_reference",
    "layer_norm_conv1x1_reference",
    "pixels_of_groups",
    "spatial_attention_reference",
    "transposed_attention_reference",
]


@outside_autocast
def channel_gram_reference(q: Tensor, k: Tensor, groups: int) -> tuple[Tensor, Tensor, Tensor]:
    """Per group q k^T, and the sums of squares of q and k, over the pixels of (B, C, H, W), as
    :func:`aicr_ext.ops.channel_gram.channel_gram`; float32 (float64 for float64)."""
    q, k = pixels_of_groups(q, groups), pixels_of_groups(k, groups)
    if q.dtype in (torch.bfloat16, torch.float16):  # products of 16-bit numbers are slow where rows lie apart
        q, k = q.contiguous(), k.contiguous()
    return _wide(q.transpose(2, 3) @ k), _wide(q).square().sum(2), _wide(k).square().sum(2)


def pixels_of_groups(t: Tensor, groups: int) -> Tensor:
    """(B, C, H, W) as (B, groups, H W, C / groups)."""
    return t.permute(0, 2, 3, 1).flatten(1, 2).unflatten(2, (groups, t.shape[1] // groups)).transpose(1, 2)


@outside_autocast
def decoupled_attention_reference(attn: Tensor, value: Tensor, weight_row: Tensor, weight_col: Tensor) -> Tensor:
    """dwconv_{K×1}(GELU(dwconv_{1×K}(GELU(attn)))) ⊙ value, as
    :func:`aicr_ext.ops.decoupled_attention.decoupled_attention`.

    The weights are taken in the dtype of ``attn``.
    """
    channels, taps = attn.shape[1], weight_row.shape[3]
    row, col = weight_row.to(attn.dtype), weight_col.to(attn.dtype)
    rows = F.conv2d(F.gelu(attn), row, padding=(0, taps // 2), groups=channels)
    return F.conv2d(F.gelu(rows), col, padding=(taps // 2, 0), groups=channels) * value


@outside_autocast
def decoupled_attention_backward_reference(
    grad: Tensor,
    attn: Tensor,
    value: Tensor,
    weight_row: Tensor,
    weight_col: Tensor,
    *,
    needs: Sequence[bool] = (True, True, True, True),
) -> tuple[Tensor | None, ...]:
    """Gradients of the four arguments in their dtypes, None where not needed: the forward pass again, then each
    operation's own derivative."""
    needs_attn, needs_value, needs_row, needs_col = needs
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


@outside_autocast
def depthwise_conv3x3_reference(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """The depthwise convolution of (B, C, H, W) with (C, 1, 3, 3); zeros are padded.

    The weights are taken in the dtype of ``x``.
    """
    bias = None if bias is None else bias.to(x.dtype)
    return F.conv2d(x, weight.to(x.dtype), bias, padding=1, groups=x.shape[1])


@outside_autocast
def depthwise_conv3x3_backward_reference(
    grad: Tensor, x: Tensor, weight: Tensor, with_bias: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of ``x``, ``weight`` and ``bias`` (empty unless ``with_bias``); the last two in the dtype of sums."""
    channels = x.shape[1]
    sizes = [channels] if with_bias else None
    grad_x, *sums = torch.ops.aten.convolution_backward(
        grad, x, weight.to(x.dtype), sizes, [1, 1], [1, 1], [1, 1], False, [0, 0], channels, [True, True, with_bias]
    )
    grad_weight, grad_bias = (_wide(x.new_empty(0) if t is None else t) for t in sums)
    return grad_x, grad_weight, grad_bias


@outside_autocast
def depthwise_gram_reference(
    qk: Tensor, weight: Tensor, bias: Tensor | None, groups: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Per group q k^T, and the sums of squares of q and k, over the pixels of the depthwise convolution of qk, as
    :func:`aicr_ext.ops.depthwise_gram.depthwise_gram`.

    The weights are taken in the dtype of ``qk``; the results are float32 (float64 for float64).
    """
    q, k = _queries_and_keys(depthwise_conv3x3_reference(qk, weight, bias), groups)
    return _wide(q @ k.transpose(2, 3)), _wide(q).square().sum(3), _wide(k).square().sum(3)


@outside_autocast
def depthwise_gram_backward_reference(
    grads: Sequence[Tensor], qk: Tensor, weight: Tensor, bias: Tensor | None, groups: int
) -> Tensor:
    """The gradient of the convolution of ``qk``, which is formed again, from those of the three results;
    :func:`depthwise_conv3x3_backward_reference` leads on from it."""
    grad_scores, grad_q_norm, grad_k_norm = grads
    q, k = _queries_and_keys(depthwise_conv3x3_reference(qk, weight, bias), groups)
    low, doubled_q, doubled_k = grad_scores.to(q.dtype), 2 * grad_q_norm[..., None], 2 * grad_k_norm[..., None]
    grad_q = _wide(low @ k) + doubled_q * q
    grad_k = _wide(low.transpose(2, 3) @ q) + doubled_k * k
    return torch.stack([grad_q, grad_k], 1).to(qk.dtype).reshape(qk.shape)


@outside_autocast
def fold_channel_attention_reference(
    scores: Tensor, q_norm: Tensor, k_norm: Tensor, temperature: Tensor, project_out: Tensor
) -> Tensor:
    """W_out · blockdiag(A) with A = softmax(scores / (|q| |k|) · temperature), as
    :func:`aicr_ext.ops.fold_channel_attention.fold_channel_attention`."""
    return fold_softmax(_cosines(scores, q_norm, k_norm), temperature, project_out)


@outside_autocast
def fold_channel_attention_backward_reference(
    grad: Tensor, scores: Tensor, q_norm: Tensor, k_norm: Tensor, temperature: Tensor, project_out: Tensor
) -> tuple[Tensor, ...]:
    """Gradients of the five arguments, in the dtype of ``scores``."""
    cosines = _cosines(scores, q_norm, k_norm)
    grad_cosines, grad_temperature, grad_out = fold_softmax_backward(grad, cosines, temperature, project_out)
    # d (1 / sqrt(n)) / dn = -1 / (2 n sqrt(n)), and 0 where n is below its least value.
    half = -0.5 * grad_cosines * cosines
    grad_q, grad_k = (
        sums / norm.clamp_min(LEAST_NORM) * (norm >= LEAST_NORM)
        for sums, norm in ((half.sum(3), q_norm), (half.sum(2), k_norm))
    )
    return _cosines(grad_cosines, q_norm, k_norm), grad_q, grad_k, grad_temperature, grad_out


#: Sums of squares are at least this before their square roots divide: channels that are 0 have no direction.
LEAST_NORM = 1e-24


def _cosines(scores: Tensor, q_norm: Tensor, k_norm: Tensor) -> Tensor:
    """scores / (|q| |k|), from sums of squares."""
    q_inverse, k_inverse = (torch.rsqrt(norm.clamp_min(LEAST_NORM)) for norm in (q_norm, k_norm))
    return scores * q_inverse[..., :, None] * k_inverse[..., None, :]


def fold_softmax(scores: Tensor, temperature: Tensor, project_out: Tensor) -> Tensor:
    """W_out · blockdiag(A) with A = softmax(scores · temperature): (B, N, C) in the dtype of ``scores``."""
    attention = (scores * temperature.to(scores.dtype).view(-1, 1, 1)).softmax(-1)
    return (_projections(scores, project_out) @ attention).transpose(1, 2).flatten(2)


def fold_softmax_backward(
    grad: Tensor, scores: Tensor, temperature: Tensor, project_out: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of the three arguments of :func:`fold_softmax`, in the dtype of ``scores``."""
    factor = temperature.to(scores.dtype).view(-1, 1, 1)
    attention = (scores * factor).softmax(-1)
    grad = grad.unflatten(2, scores.shape[1:3]).transpose(1, 2)
    grad_attention = _projections(scores, project_out).transpose(1, 2) @ grad
    grad_logits = attention * (grad_attention - (grad_attention * attention).sum(-1, keepdim=True))
    grad_temperature = (grad_logits * scores).sum((0, 2, 3)).reshape(temperature.shape)
    grad_out = (grad @ attention.transpose(2, 3)).sum(0).transpose(0, 1).reshape(project_out.shape)
    return grad_logits * factor, grad_temperature, grad_out


def _projections(scores: Tensor, project_out: Tensor) -> Tensor:
    """The columns of (N, C, 1, 1) that belong to each group: (groups, N, C / groups)."""
    return project_out.to(scores.dtype).flatten(1).unflatten(1, scores.shape[1:3]).transpose(0, 1)


def _queries_and_keys(maps: Tensor, groups: int) -> tuple[Tensor, Tensor]:
    """The halves of (B, 2C, H, W) as (B, groups, C / groups, H W)."""
    return maps.flatten(2).unflatten(1, (2, groups, maps.shape[1] // 2 // groups)).unbind(1)


def _wide(x: Tensor) -> Tensor:
    return x if x.dtype == torch.float64 else x.float()


@outside_autocast
def gated_depthwise_conv3x3_reference(x: Tensor, weight: Tensor, bias: Tensor | None, gelu: bool) -> Tensor:
    """GELU(a) ⊙ b, or a ⊙ b, for the halves a and b of the depthwise convolution of (B, 2C, H, W), as
    :func:`aicr_ext.ops.gated_depthwise_conv3x3.gated_depthwise_conv3x3`.

    The weights are taken in the dtype of ``x``.
    """
    a, b = _depthwise_halves(x, weight, bias)
    return (F.gelu(a) if gelu else a) * b


@outside_autocast
def gated_depthwise_conv3x3_backward_reference(
    grad: Tensor, x: Tensor, weight: Tensor, bias: Tensor | None, gelu: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of ``x``, ``weight`` and ``bias`` (empty without one): the convolution again, then the derivatives.

    The last two are in the dtype of sums.
    """
    a, b = _depthwise_halves(x, weight, bias)
    up = torch.cat(
        [torch.ops.aten.gelu_backward(grad * b, a) if gelu else grad * b, grad * (F.gelu(a) if gelu else a)], 1
    )
    return depthwise_conv3x3_backward_reference(up, x, weight, bias is not None)


def _depthwise_halves(x: Tensor, weight: Tensor, bias: Tensor | None) -> tuple[Tensor, ...]:
    return depthwise_conv3x3_reference(x, weight, bias).chunk(2, 1)


@outside_autocast
def gelu_gate_reference(x: Tensor) -> Tensor:
    """GELU(x[:, :C]) ⊙ x[:, C:] of (B, 2C, H, W), as :func:`aicr_ext.ops.gelu_gate.gelu_gate`."""
    gate, value = x.chunk(2, 1)
    return F.gelu(gate) * value


@outside_autocast
def gelu_gate_backward_reference(grad: Tensor, x: Tensor) -> Tensor:
    """Gradient of ``x`` from that of the result."""
    gate, value = x.chunk(2, 1)
    return torch.cat([torch.ops.aten.gelu_backward(grad * value, gate), grad * F.gelu(gate)], 1)


@outside_autocast
def layer_norm2d_reference(
    x: Tensor, weight: Tensor, eps: float = 1e-5, *, bias: Tensor | None = None, subtract_mean: bool = False
) -> Tensor:
    """x / sqrt(var(x) + eps) * weight (+ bias), or (x - mean(x)) / ...; over the channels of (B, C, H, W), as
    :func:`aicr_ext.ops.layer_norm2d.layer_norm2d`.

    Statistics are in float32 (float64 for float64); the weights are taken in the dtype of ``x``.
    """
    pixels = x.permute(0, 2, 3, 1)
    mean, rstd = _statistics(pixels, eps)
    centred = pixels - mean.to(x.dtype) if subtract_mean else pixels
    out = centred * rstd.to(x.dtype) * weight.to(x.dtype)
    if bias is not None:
        out = out + bias.to(x.dtype)
    return out.permute(0, 3, 1, 2)


@outside_autocast
def layer_norm2d_backward_reference(
    grad: Tensor, x: Tensor, weight: Tensor, with_bias: bool, subtract_mean: bool, eps: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of ``x``, ``weight`` and ``bias`` (empty unless ``with_bias``); the last two in the dtype of sums."""
    pixels, up = x.permute(0, 2, 3, 1), grad.permute(0, 2, 3, 1)
    mean, rstd = _statistics(pixels, eps)
    up = up.to(mean.dtype)
    deviation = pixels.to(mean.dtype) - mean
    z = deviation if subtract_mean else pixels.to(mean.dtype)
    g = up * weight.to(mean.dtype)
    grad_x = g - deviation * rstd.square() * (g * z).mean(-1, keepdim=True)
    if subtract_mean:
        grad_x = grad_x - g.mean(-1, keepdim=True)
    grad_weight = (up * z * rstd).sum((0, 1, 2))
    grad_bias = up.sum((0, 1, 2)) if with_bias else up.new_empty(0)
    return (rstd * grad_x).to(x.dtype).permute(0, 3, 1, 2), grad_weight, grad_bias


@outside_autocast
def layer_norm_conv1x1_reference(
    x: Tensor,
    norm_weight: Tensor,
    norm_bias: Tensor | None,
    weight: Tensor,
    bias: Tensor | None,
    second_weight: Tensor | None,
    second_bias: Tensor | None,
    subtract_mean: bool,
    eps: float,
) -> tuple[Tensor, Tensor]:
    """One or two 1x1 convolutions of the norm of x, the second result empty without a second weight, as
    :func:`aicr_ext.ops.layer_norm_conv1x1.layer_norm_conv1x1_pair`.

    The weights are taken in the dtype of ``x``.
    """
    normed = layer_norm2d_reference(x, norm_weight, eps, bias=norm_bias, subtract_mean=subtract_mean)

    def project(weight: Tensor | None, bias: Tensor | None) -> Tensor:
        if weight is None:
            return x.new_empty(0)
        return F.conv2d(normed, weight.to(x.dtype), None if bias is None else bias.to(x.dtype))

    return project(weight, bias), project(second_weight, second_bias)


def _statistics(pixels: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """Mean and 1 / sqrt(variance + eps) over the last axis, which stays; float32 (float64 for float64)."""
    wide = pixels if pixels.dtype == torch.float64 else pixels.float()
    mean = wide.mean(-1, keepdim=True)
    # Tensor.var over the innermost dimension is many times slower than these passes.
    return mean, torch.rsqrt((wide - mean).square().mean(-1, keepdim=True) + eps)


def transposed_attention_reference(
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
) -> Tensor:
    """As :func:`aicr_ext.ops.transposed_attention`, in the printed order: scores, softmax, values, projection."""
    batch, c, height, width = x.shape

    def projected(t: Tensor) -> Tensor:
        if norm is not None:
            t = layer_norm2d_reference(t, norm, eps, bias=norm_bias, subtract_mean=subtract_mean)
        t = F.conv2d(t, qkv, qkv_bias)
        if qkv_dwconv is not None:
            t = F.conv2d(t, qkv_dwconv, qkv_dwconv_bias, padding=1, groups=3 * c)
        return t.reshape(batch, 3, groups, c // groups, height * width)

    q = projected(x)[:, 0]
    k, v = projected(x if context is None else context)[:, 1:].unbind(1)
    if scale is None:
        q, k, scale = F.normalize(q, dim=-1), F.normalize(k, dim=-1), 1.0
    scores = q @ k.transpose(-1, -2) * scale
    if temperature is not None:
        scores = scores * temperature.view(-1, 1, 1)
    out = F.conv2d((scores.softmax(-1) @ v).reshape(x.shape), project_out, project_out_bias)
    return x + out if residual else out


def spatial_attention_reference(
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
) -> Tensor:
    """As :func:`aicr_ext.ops.spatial_attention`."""
    t = layer_norm2d_reference(x, norm, eps)
    attn, value = F.conv2d(t, project_attn, project_attn_bias), F.conv2d(t, project_value, project_value_bias)
    t = decoupled_attention_reference(attn, value, dwconv_row, dwconv_col)
    return x + F.conv2d(t, project_out, project_out_bias)


def gated_convolutions_reference(
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
) -> Tensor:
    """As :func:`aicr_ext.ops.gated_convolutions`."""
    t = x if norm is None else layer_norm2d_reference(x, norm, eps, bias=norm_bias, subtract_mean=subtract_mean)
    t = gated_depthwise_conv3x3_reference(F.conv2d(t, project_in, project_in_bias), dwconv, dwconv_bias, gelu)
    out = F.conv2d(t, project_out, project_out_bias)
    return x + out if residual else out
