"""The block-level operations of the network as functions of tensors and weights, in plain torch.

Each function holds one branch with its norm and its residual, so that an accelerated version can replace it
whole. Feature maps are (B, C, H, W) in any memory format; channels-last is the fast one, because every 1x1
convolution is then one matrix product over pixels. Reductions and softmax are in float32.

Without gradients a large map is worked through in strips of rows: the intermediate tensors, up to six times as
large as the map itself, then stay in the processor's cache instead of passing through memory. Convolutions read
the rows they need beyond the strip, and the sums of the channel attention add up over strips, so the result is
that of the whole map up to the order of float32 additions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from aicr_ext.ops.decoupled_attention import decoupled_attention
from aicr_ext.ops.depthwise_gram import depthwise_gram
from aicr_ext.ops.fold_channel_attention import fold_channel_attention
from aicr_ext.ops.gated_depthwise_conv3x3 import gated_depthwise_conv3x3
from aicr_ext.ops.kernels import has_kernel
from aicr_ext.ops.layer_norm2d import layer_norm2d

__all__ = [
    "channel_attention",
    "gated_convolutions",
    "gated_feed_forward",
    "spatial_attention",
    "transposed_attention",
]

#: Values of the widest intermediate tensor of one strip. Fixed, so that a shape always gives the same strips.
STRIP_VALUES = 1 << 20


def strips(x: Tensor, widest: int, reach: int) -> Iterator[tuple[Tensor, slice, slice]]:
    """Row strips of (B, C, H, W): the rows with ``reach`` more on each side, which of them to keep, and where.

    ``widest`` is the number of channels of the widest intermediate tensor. One strip when ``x`` needs gradients
    (their graph keeps every intermediate anyway), on a GPU, for small maps, and in a graph that is to serve every size.
    """
    height, width = x.shape[2:]
    of_any_size = any(isinstance(size, torch.SymInt) for size in x.shape)
    if torch.is_grad_enabled() or x.device.type != "cpu" or of_any_size:
        yield x, slice(None), slice(None)
        return
    rows = max(8, STRIP_VALUES // max(1, x.shape[0] * width * widest))
    for start in range(0, height, rows):
        stop = min(start + rows, height)
        first, last = max(start - reach, 0), min(stop + reach, height)
        yield x[:, :, first:last], slice(start - first, stop - first), slice(start, stop)


def over_strips(
    x: Tensor, widest: int, reach: int, branch: Callable[[Tensor, slice], Tensor], residual: bool = True
) -> Tensor:
    """x + branch(x), or branch(x), strip by strip; ``branch`` gets a strip with its margin and the rows to return."""

    def rows(block: Tensor, keep: slice, out: Tensor | None = None) -> Tensor:
        result = branch(block, keep)
        if residual:
            return torch.add(block[:, :, keep], result, out=out)
        return result if out is None else out.copy_(result)

    parts = strips(x, widest, reach)
    block, keep, place = next(parts)
    if place.stop in (None, x.shape[2]):
        return rows(block, keep)
    first = rows(block, keep)
    layout = torch.channels_last if first.is_contiguous(memory_format=torch.channels_last) else torch.contiguous_format
    size = (*first.shape[:2], *x.shape[2:])
    out = torch.empty(size, dtype=first.dtype, device=first.device, memory_format=layout)
    out[:, :, place] = first
    for block, keep, place in parts:
        rows(block, keep, out[:, :, place])
    return out


#: A convolution's weight and bias.
Projection = tuple[Tensor, Tensor | None]


def transposed_attention(
    x: Tensor,
    qkv: Projection,
    qkv_dwconv: Projection,
    temperature: Tensor,
    project_out: Projection,
    *,
    groups: int,
    norm: Callable[[Tensor], Tensor] | None = None,
    residual: bool = False,
) -> Tensor:
    """Attention between channels instead of pixels (Restormer's MDTA), optionally of a norm of x, and added to x.

    Queries and keys are L2-normalised over the picture; the (C / groups, C / groups) attention map of each group is
    shared by every pixel.

    Args:
        x: (B, C, H, W).
        qkv: weight (3C, C, 1, 1) and bias (3C,) or None; ``qkv_dwconv``: (3C, 1, 3, 3), zero padding, and bias.
        temperature: ``groups`` values, factors of the cosine scores.
        project_out: (C, C, 1, 1), and bias.
        groups: number of heads; divides C.
        norm: applied to x first.
        residual: return x + the attention.
    """
    c = x.shape[1]

    def project(block: Tensor, keep: slice, part: slice) -> Tensor:
        t = F.conv2d(block if norm is None else norm(block), qkv[0][part], _part(qkv[1], part))
        weight, bias = qkv_dwconv[0][part], _part(qkv_dwconv[1], part)
        return F.conv2d(t, weight, bias, padding=1, groups=t.shape[1])[:, :, keep]

    def pixels(t: Tensor) -> Tensor:
        return t.permute(0, 2, 3, 1).flatten(1, 2)

    def value_branch(block: Tensor, keep: slice) -> Tensor:
        v = project(block, keep, slice(2 * c, 3 * c))
        out = pixels(v) @ folded
        if project_out[1] is not None:
            out = out + project_out[1].to(out.dtype)
        return out.unflatten(1, v.shape[2:]).permute(0, 3, 1, 2)

    if has_channel_kernels(x):
        both = slice(0, 2 * c)
        qk = F.conv2d(x if norm is None else norm(x), qkv[0][both], _part(qkv[1], both))
        scores = depthwise_gram(qk, qkv_dwconv[0][both], _part(qkv_dwconv[1], both), groups=groups)
        folded = fold_channel_attention(*scores, temperature, project_out[0])
    else:
        sums = [
            gram(*pixels(project(block, keep, slice(0, 2 * c))).split(c, 2), groups)
            for block, keep, _ in strips(x, 2 * c, 1)
        ]
        attention = attention_map(*(sum(parts[1:], parts[0]) for parts in zip(*sums, strict=True)), temperature)
        folded = fold_attention(attention, project_out[0])
    folded = folded.transpose(1, 2).to(x.dtype)
    return over_strips(x, 2 * c, 1, value_branch, residual)


def has_channel_kernels(x: Tensor) -> bool:
    """Whether depthwise_gram and fold_channel_attention run natively on x; on the CPU strips in the cache do better."""
    return x.device.type == "cuda" and has_kernel("cuda") and x.dtype != torch.float64


def _part(bias: Tensor | None, part: slice) -> Tensor | None:
    return None if bias is None else bias[part]


def channel_attention(
    x: Tensor,
    norm: Tensor,
    qkv: Tensor,
    qkv_dwconv: Tensor,
    temperature: Tensor,
    project_out: Tensor,
    *,
    groups: int,
    eps: float = 1e-5,
) -> Tensor:
    """x + C-GA(LN x): grouped channel attention (AICR eq. 1-3, scores as in the released code).

    Args:
        x: (B, C, H, W).
        norm: (C,) weight of the norm.
        qkv, qkv_dwconv, temperature, project_out, groups: as :func:`transposed_attention`, without biases.
    """
    return transposed_attention(
        x,
        (qkv, None),
        (qkv_dwconv, None),
        temperature,
        (project_out, None),
        groups=groups,
        norm=lambda t: layer_norm2d(t, norm, eps),
        residual=True,
    )


def wide(t: Tensor) -> Tensor:
    return t if t.dtype == torch.float64 else t.float()


def gram(q: Tensor, k: Tensor, groups: int) -> tuple[Tensor, Tensor, Tensor]:
    """Per group q^T k and the squared row norms of q and k, from (B, pixels, C); all float32 (float64 for float64).

    They are sums over pixels, so those of a picture are the sums of those of its parts.
    """
    q = q.unflatten(2, (groups, -1)).transpose(1, 2)
    k = k.unflatten(2, (groups, -1)).transpose(1, 2)
    return wide(q.transpose(2, 3) @ k), wide(q).square().sum(2), wide(k).square().sum(2)


def attention_map(scores: Tensor, q_norm: Tensor, k_norm: Tensor, temperature: Tensor) -> Tensor:
    """Softmax over keys of the cosine scores times the temperature: (B, groups, C/groups, C/groups)."""
    q_inverse = torch.rsqrt(q_norm.clamp_min(1e-24))[..., :, None]
    k_inverse = torch.rsqrt(k_norm.clamp_min(1e-24))[..., None, :]
    return (scores * q_inverse * k_inverse * wide(temperature).view(-1, 1, 1)).softmax(-1)


def fold_attention(attention: Tensor, project_out: Tensor) -> Tensor:
    """W_out · blockdiag(A), one (C, C) matrix per picture, so that A·v never exists as a tensor."""
    b, g, d, _ = attention.shape
    blocks = wide(project_out).reshape(-1, g, d).transpose(0, 1)
    return (blocks @ attention).transpose(1, 2).reshape(b, -1, g * d)


def spatial_attention(
    x: Tensor,
    norm: Tensor,
    project_attn: tuple[Tensor, Tensor],
    dwconv_row: Tensor,
    dwconv_col: Tensor,
    project_value: tuple[Tensor, Tensor],
    project_out: tuple[Tensor, Tensor],
    *,
    eps: float = 1e-5,
) -> Tensor:
    """x + S-DA(LN x): decoupled depthwise spatial attention (AICR eq. 4-5).

    Args:
        x: (B, C, H, W).
        norm: (C,) weight of the norm.
        project_attn, project_value, project_out: weight (C, C, 1, 1) and bias (C,) of a 1x1 convolution.
        dwconv_row: (C, 1, 1, K); ``dwconv_col``: (C, 1, K, 1); K odd, zero padding.
    """
    reach = dwconv_col.shape[2] // 2

    def branch(block: Tensor, keep: slice) -> Tensor:
        t = layer_norm2d(block, norm, eps)
        attn = F.conv2d(t, *project_attn)
        value = F.conv2d(t, *project_value)
        return F.conv2d(decoupled_attention(attn, value, dwconv_row, dwconv_col)[:, :, keep], *project_out)

    return over_strips(x, 2 * x.shape[1], reach, branch)


def gated_convolutions(
    x: Tensor,
    project_in: Projection,
    dwconv: Projection,
    project_out: Projection,
    *,
    activation: str | None = "gelu",
    norm: Callable[[Tensor], Tensor] | None = None,
    residual: bool = False,
) -> Tensor:
    """The gated depthwise feed-forward (Restormer's GDFN), optionally of a norm of x, and added to x.

    Args:
        x: (B, C, H, W).
        project_in: weight (2h, C, 1, 1) and bias (2h,) or None; ``dwconv``: (2h, 1, 3, 3), zero padding, and bias;
            ``project_out``: (C, h, 1, 1), and bias.
        activation: of the first half before it multiplies the second: ``"gelu"`` or None.
        norm: applied to x first.
        residual: return x + the feed-forward.
    """

    def branch(block: Tensor, keep: slice) -> Tensor:
        t = F.conv2d(block if norm is None else norm(block), *project_in)
        t = gated_depthwise_conv3x3(t, *dwconv, activation=activation)[:, :, keep]
        return F.conv2d(t, *project_out)

    return over_strips(x, project_in[0].shape[0], 1, branch, residual)


def gated_feed_forward(
    x: Tensor, norm: Tensor, project_in: Tensor, dwconv: Tensor, project_out: Tensor, *, eps: float = 1e-5
) -> Tensor:
    """x + GDFN(LN x): gated depthwise feed-forward, as AICR has it.

    Args:
        x: (B, C, H, W).
        norm: (C,) weight of the norm.
        project_in, dwconv, project_out: as :func:`gated_convolutions`, without biases.
    """
    return gated_convolutions(
        x,
        (project_in, None),
        (dwconv, None),
        (project_out, None),
        norm=lambda t: layer_norm2d(t, norm, eps),
        residual=True,
    )
