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
from aicr_ext.ops.gated_depthwise_conv3x3 import gated_depthwise_conv3x3
from aicr_ext.ops.layer_norm2d import layer_norm2d

__all__ = ["channel_attention", "gated_feed_forward", "spatial_attention"]

#: Values of the widest intermediate tensor of one strip. Fixed, so that a shape always gives the same strips.
STRIP_VALUES = 1 << 20


def strips(x: Tensor, widest: int, reach: int) -> Iterator[tuple[Tensor, slice, slice]]:
    """Row strips of (B, C, H, W): the rows with ``reach`` more on each side, which of them to keep, and where.

    ``widest`` is the number of channels of the widest intermediate tensor. One strip when ``x`` needs gradients
    (their graph keeps every intermediate anyway), on a GPU, and for small maps.
    """
    height, width = x.shape[2:]
    rows = max(8, STRIP_VALUES // max(1, x.shape[0] * width * widest))
    if torch.is_grad_enabled() or x.device.type != "cpu":
        rows = height
    for start in range(0, height, rows):
        stop = min(start + rows, height)
        first, last = max(start - reach, 0), min(stop + reach, height)
        yield x[:, :, first:last], slice(start - first, stop - first), slice(start, stop)


def over_strips(x: Tensor, widest: int, reach: int, branch: Callable[[Tensor, slice], Tensor]) -> Tensor:
    """x + branch(x), strip by strip; ``branch`` gets a strip with its margin and the rows of it to return."""
    parts = strips(x, widest, reach)
    block, keep, place = next(parts)
    if place.stop == x.shape[2]:
        return x + branch(block, keep)
    out = torch.empty_like(x)
    torch.add(block[:, :, keep], branch(block, keep), out=out[:, :, place])
    for block, keep, place in parts:
        torch.add(block[:, :, keep], branch(block, keep), out=out[:, :, place])
    return out


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
        qkv: (3C, C, 1, 1); ``qkv_dwconv``: (3C, 1, 3, 3), zero padding.
        temperature: (groups,) factor of the cosine scores.
        project_out: (C, C, 1, 1).
        groups: N_g, divides C.
    """
    c = x.shape[1]

    def project(block: Tensor, keep: slice, part: slice) -> Tensor:
        t = F.conv2d(layer_norm2d(block, norm, eps), qkv[part])
        return F.conv2d(t, qkv_dwconv[part], padding=1, groups=t.shape[1])[:, :, keep]

    def pixels(t: Tensor) -> Tensor:
        return t.permute(0, 2, 3, 1).flatten(1, 2)

    def value_branch(block: Tensor, keep: slice) -> Tensor:
        v = project(block, keep, slice(2 * c, 3 * c))
        return (pixels(v) @ folded).unflatten(1, v.shape[2:]).permute(0, 3, 1, 2)

    sums = [
        gram(*pixels(project(block, keep, slice(0, 2 * c))).split(c, 2), groups)
        for block, keep, _ in strips(x, 2 * c, 1)
    ]
    attention = attention_map(*(sum(parts[1:], parts[0]) for parts in zip(*sums, strict=True)), temperature)
    folded = fold_attention(attention, project_out).transpose(1, 2).to(x.dtype)
    return over_strips(x, 2 * c, 1, value_branch)


def gram(q: Tensor, k: Tensor, groups: int) -> tuple[Tensor, Tensor, Tensor]:
    """Per group q^T k and the squared row norms of q and k, from (B, pixels, C); all float32.

    They are sums over pixels, so those of a picture are the sums of those of its parts.
    """
    q = q.unflatten(2, (groups, -1)).transpose(1, 2)
    k = k.unflatten(2, (groups, -1)).transpose(1, 2)
    return (q.transpose(2, 3) @ k).float(), q.float().square().sum(2), k.float().square().sum(2)


def attention_map(scores: Tensor, q_norm: Tensor, k_norm: Tensor, temperature: Tensor) -> Tensor:
    """Softmax over keys of the cosine scores times the temperature: (B, groups, C/groups, C/groups)."""
    q_inverse = torch.rsqrt(q_norm.clamp_min(1e-24))[..., :, None]
    k_inverse = torch.rsqrt(k_norm.clamp_min(1e-24))[..., None, :]
    return (scores * q_inverse * k_inverse * temperature.float().view(-1, 1, 1)).softmax(-1)


def fold_attention(attention: Tensor, project_out: Tensor) -> Tensor:
    """W_out · blockdiag(A), one (C, C) matrix per picture, so that A·v never exists as a tensor."""
    b, g, d, _ = attention.shape
    blocks = project_out.float().reshape(-1, g, d).transpose(0, 1)
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


def gated_feed_forward(
    x: Tensor, norm: Tensor, project_in: Tensor, dwconv: Tensor, project_out: Tensor, *, eps: float = 1e-5
) -> Tensor:
    """x + GDFN(LN x): gated depthwise feed-forward (Restormer).

    Args:
        x: (B, C, H, W).
        norm: (C,) weight of the norm.
        project_in: (2h, C, 1, 1); ``dwconv``: (2h, 1, 3, 3), zero padding; ``project_out``: (C, h, 1, 1).
    """

    def branch(block: Tensor, keep: slice) -> Tensor:
        t = F.conv2d(layer_norm2d(block, norm, eps), project_in)
        return F.conv2d(gated_depthwise_conv3x3(t, dwconv)[:, :, keep], project_out)

    return over_strips(x, project_in.shape[0], 1, branch)
