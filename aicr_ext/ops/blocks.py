"""The block-level operations of the network as functions of tensors and weights, in plain torch.

Each function holds one branch with its norm and its residual, so that an accelerated version can replace it
whole. Feature maps are (B, C, H, W) in any memory format; channels-last is the fast one, because every 1x1
convolution is then one matrix product over pixels. Reductions and softmax are in float32.

Without gradients a large map is worked through in strips of rows (:mod:`aicr_ext.ops.strips`). The sums of the channel
attention add up over strips, so the result is that of the whole map up to the order of float32 additions.

``composed_*`` are these operations with every argument spelled out, as :mod:`aicr_ext.ops.block_operators` registers
them with torch. ``compute`` is the dtype of convolutions and products, that of x if None; under autocast the public
functions pass autocast's.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from aicr_ext.ops import block_paths
from aicr_ext.ops.autocast import autocast_dtype, without_autocast
from aicr_ext.ops.block_arguments import channels_of, check_transposed_attention, expect_shape
from aicr_ext.ops.block_output import OutputProjection
from aicr_ext.ops.block_parts import Projection, fitting, fold
from aicr_ext.ops.channel_gram import channel_gram
from aicr_ext.ops.decoupled_attention import decoupled_attention
from aicr_ext.ops.depthwise_conv3x3 import depthwise_conv3x3
from aicr_ext.ops.depthwise_gram import depthwise_gram
from aicr_ext.ops.fold_channel_attention import fold_channel_attention
from aicr_ext.ops.gated_depthwise_conv3x3 import gated_depthwise_conv3x3
from aicr_ext.ops.kernels import has_kernel, is_exporting
from aicr_ext.ops.pointwise import is_traced
from aicr_ext.ops.strips import can_be_written_to, over_strips, strips

__all__ = [
    "Norm",
    "Projection",
    "channel_attention",
    "gated_convolutions",
    "gated_feed_forward",
    "spatial_attention",
    "transposed_attention",
]


class Norm(NamedTuple):
    """The norm in front of a block: the arguments of :func:`aicr_ext.ops.layer_norm2d`."""

    weight: Tensor
    bias: Tensor | None = None
    subtract_mean: bool = False
    eps: float = 1e-5


def run(
    name: str, composed: Callable[..., Tensor], x: Tensor, rest: tuple[Any, ...], recompute: bool, overwrite: bool
) -> Tensor:
    """A block: its operations one after the other, or the registered operator.

    The operator, which every device has, keeps only its arguments for the backward pass. In compiled inference on a CPU
    it is one node, whose strips of rows the compiler would undo; elsewhere the operations by themselves are as fast or
    faster. In exported graphs they leave every size of picture possible.
    """
    device = x.device.type
    low = None if x.dtype == torch.float64 else autocast_dtype(device)
    compiled = device == "cpu" and torch.compiler.is_compiling() and has_kernel(device)
    if not is_exporting() and (recompute if torch.is_grad_enabled() else compiled):
        return getattr(torch.ops.aicr_ext, name)(x, *rest, low)
    overwrite = overwrite and not torch.is_grad_enabled() and not is_traced(x) and can_be_written_to(x)
    with without_autocast(device):
        return composed(x, *rest, low, overwrite=overwrite)


def transposed_attention(
    x: Tensor,
    qkv: Projection,
    qkv_dwconv: Projection | None,
    temperature: Tensor | None,
    project_out: Projection,
    *,
    groups: int,
    context: Tensor | None = None,
    scale: float | None = None,
    norm: Norm | None = None,
    residual: bool = False,
    recompute: bool = False,
    overwrite: bool = False,
) -> Tensor:
    """Attention between channels instead of pixels (Restormer's MDTA), optionally of a norm of x, and added to x.

    Queries and keys are L2-normalised over the picture; the (C / groups, C / groups) attention map of each group is
    shared by every pixel.

    Args:
        x: (B, C, H, W), float32, bfloat16, float16 or, on a CPU, float64.
        qkv: weight (3C, C, 1, 1) of queries, keys, values, in that order, and bias (3C,) or None. Where a network has
            the scores of keys and queries (MST++), hand over the keys' weights first.
        qkv_dwconv: (3C, 1, 3, 3), zero padding, and bias; None without this convolution (XCiT).
        temperature: ``groups`` values, factors of the scores; None for 1.
        project_out: (D, C, 1, 1), and bias; D is C if ``residual``.
        groups: number of heads; divides C.
        context: a map of the shape of x from which keys and values come (and the norm of it), as HVI-CIDNet has it.
        scale: with a number the scores are q · k · scale instead of cosines, with 1 / sqrt(C / groups) for example.
        norm: of x first.
        residual: return x + the attention.
        recompute: in training, keep the arguments only and compute the rest again in the backward pass: less
            memory, more time.
        overwrite: without gradients, x may be lost: with ``residual`` the result takes its place where it has the
            same dtype, which saves a map of memory and the time to get it.

    Returns:
        (B, D, H, W) in the dtype of x; under autocast, without ``residual``, in autocast's. Weights are taken in the
        dtype of the computation.

    Raises:
        ValueError: shapes other than these.
    """
    (norm_weight, norm_bias, subtract_mean, eps) = norm or (None, None, False, 1e-5)
    rest = (context, norm_weight, norm_bias, *qkv, *(qkv_dwconv or (None, None)), temperature, *project_out)
    options = (groups, scale, subtract_mean, eps, residual)
    return run("transposed_attention", composed_transposed_attention, x, (*rest, *options), recompute, overwrite)


def composed_transposed_attention(
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
    *,
    overwrite: bool = False,
) -> Tensor:
    """The operations of :func:`transposed_attention`."""
    c = x.shape[1]
    check_transposed_attention(x, context, qkv, qkv_dwconv, temperature, project_out, groups, residual)
    low, reach = compute or x.dtype, 0 if qkv_dwconv is None else 1
    qkv, qkv_bias, qkv_dwconv, qkv_dwconv_bias = (
        None if t is None else t.to(low) for t in (qkv, qkv_bias, qkv_dwconv, qkv_dwconv_bias)
    )

    arguments_of_norm = (norm, norm_bias, subtract_mean, eps)

    def projections(part: slice) -> Projection:
        return qkv[part], None if qkv_bias is None else qkv_bias[part]

    def projected(part: slice) -> Callable[[Tensor, slice], Tensor]:
        """A function of strips that follow one another, and of the rows of each to return."""
        of_strips = block_paths.StripProjection(*arguments_of_norm, low, projections(part))

        def project(block: Tensor, keep: slice) -> Tensor:
            if qkv_dwconv is None:
                return block_paths.project_norm(block, *arguments_of_norm, low, projections(part))[0][:, :, keep]
            return mixed(of_strips(block, keep)[0], part)[:, :, keep]

        return project

    def mixed(t: Tensor, part: slice) -> Tensor:
        return depthwise_conv3x3(t, qkv_dwconv[part], None if qkv_dwconv_bias is None else qkv_dwconv_bias[part])

    def score_sums(x: Tensor, context: Tensor | None) -> list[Tensor]:
        of_context = strips(x if context is None else context, 2 * c, reach)
        both, query, key = (projected(slice(first * c, last * c)) for first, last in ((0, 2), (0, 1), (1, 2)))
        sums = []
        for (block, keep, _), (other, _, _) in zip(strips(x, 2 * c, reach), of_context, strict=True):
            if context is None:
                q, k = both(block, keep).split(c, 1)
            else:
                q, k = query(block, keep), key(other, keep)
            sums.append(channel_gram(q, k, groups=groups))
        return [sum(parts[1:], parts[0]) for parts in zip(*sums, strict=True)]

    first, last = slice(0, 2 * c), slice(2 * c, 3 * c)
    values = None  # projected already, of the whole map
    if context is None and qkv_dwconv is not None and scale is None and block_paths.has_channel_kernels(x):
        qk, values = block_paths.project_norm(x, *arguments_of_norm, low, projections(first), projections(last))
        bias = None if qkv_dwconv_bias is None else qkv_dwconv_bias[first]
        scores = depthwise_gram(qk, qkv_dwconv[first], bias, groups=groups)
        factors = scores[0].new_ones(groups) if temperature is None else temperature
        folded = fold_channel_attention(*scores, factors, project_out)
    else:
        folded = fold(*score_sums(x, context), temperature, project_out, scale)
    folded, of_strips = folded.to(low), projected(last)

    def value_branch(block: Tensor, keep: slice) -> Tensor:
        return of_strips(block, keep) if values is None else mixed(values, last)[:, :, keep]

    if context is None and residual and project_out_bias is None and block_paths.adds_in_place(x, low, overwrite):
        return block_paths.add_projection(x, value_branch(x, slice(None)), folded)
    output = OutputProjection(folded, None if project_out_bias is None else project_out_bias.to(low))
    if context is None:
        return over_strips(x, 2 * c, reach, value_branch, output, residual, overwrite)
    out = over_strips(context, 2 * c, reach, value_branch, output, residual=False)
    return x + out if residual else out


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
    recompute: bool = False,
    overwrite: bool = False,
) -> Tensor:
    """x + C-GA(LN x): grouped channel attention (AICR eq. 1-3, scores as in the released code).

    Args:
        x: (B, C, H, W).
        norm: (C,) weight of the norm.
        qkv, qkv_dwconv, temperature, project_out, groups, recompute, overwrite: as :func:`transposed_attention`,
            without biases.
    """
    return transposed_attention(
        x,
        (qkv, None),
        (qkv_dwconv, None),
        temperature,
        (project_out, None),
        groups=groups,
        norm=Norm(norm, eps=eps),
        residual=True,
        recompute=recompute,
        overwrite=overwrite,
    )


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
    recompute: bool = False,
    overwrite: bool = False,
) -> Tensor:
    """x + S-DA(LN x): decoupled depthwise spatial attention (AICR eq. 4-5).

    Args:
        x: (B, C, H, W).
        norm: (C,) weight of the norm.
        project_attn, project_value, project_out: weight (C, C, 1, 1) and bias (C,) of a 1x1 convolution.
        dwconv_row: (C, 1, 1, K); ``dwconv_col``: (C, 1, K, 1); K odd, zero padding.
        recompute, overwrite: as :func:`transposed_attention`.

    Raises:
        ValueError: shapes other than these.
    """
    rest = (norm, *project_attn, dwconv_row, dwconv_col, *project_value, *project_out, eps)
    return run("spatial_attention", composed_spatial_attention, x, rest, recompute, overwrite)


def composed_spatial_attention(
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
    *,
    overwrite: bool = False,
) -> Tensor:
    """The operations of :func:`spatial_attention`."""
    c = channels_of(x)
    for name, weight in (("attn", project_attn), ("value", project_value), ("out", project_out)):
        expect_shape(f"project_{name}", weight, (c, c, 1, 1))
    low, reach = compute or x.dtype, dwconv_col.shape[2] // 2
    to_attn, to_value, to_out = (
        tuple(None if t is None else t.to(low) for t in projection)
        for projection in (
            (project_attn, project_attn_bias),
            (project_value, project_value_bias),
            (project_out, project_out_bias),
        )
    )
    row, col = fitting(dwconv_row, low), fitting(dwconv_col, low)

    projected = block_paths.StripProjection(norm, None, False, eps, low, to_attn, to_value)

    def branch(block: Tensor, keep: slice) -> Tensor:
        attn, value = projected(block, keep)
        return decoupled_attention(attn, value, row, col)[:, :, keep]

    return over_strips(x, 2 * c, reach, branch, OutputProjection(*to_out), overwrite=overwrite)


def gated_convolutions(
    x: Tensor,
    project_in: Projection,
    dwconv: Projection,
    project_out: Projection,
    *,
    activation: str | None = "gelu",
    norm: Norm | None = None,
    residual: bool = False,
    recompute: bool = False,
    overwrite: bool = False,
) -> Tensor:
    """The gated depthwise feed-forward (Restormer's GDFN), optionally of a norm of x, and added to x.

    Args:
        x: (B, C, H, W), float32, bfloat16, float16 or, on a CPU, float64.
        project_in: weight (2h, C, 1, 1) and bias (2h,) or None; ``dwconv``: (2h, 1, 3, 3), zero padding, and bias;
            ``project_out``: (D, h, 1, 1), and bias; D is C if ``residual``.
        activation: of the first half before it multiplies the second: ``"gelu"`` or None.
        norm: of x first.
        residual: return x + the feed-forward.
        recompute, overwrite: as :func:`transposed_attention`.

    Returns:
        (B, D, H, W) in the dtype of x; under autocast, without ``residual``, in autocast's.

    Raises:
        ValueError: another activation, or shapes other than these.
    """
    if activation not in ("gelu", None):
        raise ValueError(f"activation must be 'gelu' or None, got {activation!r}")
    (norm_weight, norm_bias, subtract_mean, eps) = norm or (None, None, False, 1e-5)
    rest = (norm_weight, norm_bias, *project_in, *dwconv, *project_out)
    options = (activation == "gelu", subtract_mean, eps, residual)
    return run("gated_convolutions", composed_gated_convolutions, x, (*rest, *options), recompute, overwrite)


def composed_gated_convolutions(
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
    *,
    overwrite: bool = False,
) -> Tensor:
    """The operations of :func:`gated_convolutions`."""
    c, hidden = channels_of(x), project_out.shape[1]
    expect_shape("project_in", project_in, (2 * hidden, c, 1, 1))
    expect_shape("dwconv", dwconv, (2 * hidden, 1, 3, 3))
    expect_shape("project_out", project_out, (c if residual else project_out.shape[0], hidden, 1, 1))
    low = compute or x.dtype
    project_in, project_in_bias, project_out, project_out_bias = (
        None if t is None else t.to(low) for t in (project_in, project_in_bias, project_out, project_out_bias)
    )
    dwconv, dwconv_bias = fitting(dwconv, low), None if dwconv_bias is None else fitting(dwconv_bias, low)

    into = (project_in, project_in_bias)
    projected = block_paths.StripProjection(norm, norm_bias, subtract_mean, eps, low, into)

    def branch(block: Tensor, keep: slice) -> Tensor:
        (t,) = projected(block, keep)
        return gated_depthwise_conv3x3(t, dwconv, dwconv_bias, activation="gelu" if gelu else None)[:, :, keep]

    if residual and project_out_bias is None and block_paths.adds_in_place(x, low, overwrite):
        return block_paths.add_projection(x, branch(x, slice(None)), project_out.flatten(1))
    output = OutputProjection(project_out, project_out_bias)
    return over_strips(x, 2 * hidden, 1, branch, output, residual, overwrite)


def gated_feed_forward(
    x: Tensor,
    norm: Tensor,
    project_in: Tensor,
    dwconv: Tensor,
    project_out: Tensor,
    *,
    eps: float = 1e-5,
    recompute: bool = False,
    overwrite: bool = False,
) -> Tensor:
    """x + GDFN(LN x): gated depthwise feed-forward, as AICR has it.

    Args:
        x: (B, C, H, W).
        norm: (C,) weight of the norm.
        project_in, dwconv, project_out, recompute, overwrite: as :func:`gated_convolutions`, without biases.
    """
    return gated_convolutions(
        x,
        (project_in, None),
        (dwconv, None),
        (project_out, None),
        norm=Norm(norm, eps=eps),
        residual=True,
        recompute=recompute,
        overwrite=overwrite,
    )
