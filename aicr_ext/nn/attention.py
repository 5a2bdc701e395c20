"""Attention between channels and attention over rows and columns, as modules.

All have ``recompute``: set to True, training keeps the input of the module and computes the rest again in the backward
pass, which takes less memory and more time. Maps are (B, C, H, W), float32, bfloat16, float16 or float64, with or
without autocast; channels-last is the fast layout.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from aicr_ext import ops

from .norm import LayerNorm2d

__all__ = ["ChannelAttention", "SpatialAttention", "TransposedAttention"]


def _depthwise(channels: int, kernel: tuple[int, int] = (3, 3), bias: bool = False) -> nn.Conv2d:
    padding = (kernel[0] // 2, kernel[1] // 2)
    return nn.Conv2d(channels, channels, kernel, padding=padding, groups=channels, bias=bias)


class TransposedAttention(nn.Module):
    """Attention between channels, without norm or residual: MDTA of Restormer (CVPR 2022).

    Shapes: (B, ``channels``, H, W) to the same.

    Args:
        channels: C; a multiple of ``groups``.
        groups: heads.
        bias: of all convolutions.
        depthwise: with a depthwise 3x3 convolution of queries, keys and values.
        temperature: with a learned factor of the scores for each group.
        scale: with a number the scores are q · k · scale instead of cosines.
        recompute: as at the top of this file.

    Keys of the ``state_dict``: ``temperature`` (groups, 1, 1), ``qkv``, ``qkv_dwconv``, ``project_out``, those of
    Restormer.

    Raises:
        ValueError: ``groups`` does not divide ``channels``.
    """

    def __init__(
        self,
        channels: int,
        groups: int,
        *,
        bias: bool = False,
        depthwise: bool = True,
        temperature: bool = True,
        scale: float | None = None,
        recompute: bool = False,
    ) -> None:
        super().__init__()
        check_groups(channels, groups)
        self.groups, self.scale, self.recompute = groups, scale, recompute
        self.temperature = nn.Parameter(torch.ones(groups, 1, 1)) if temperature else None
        self.qkv = nn.Conv2d(channels, 3 * channels, 1, bias=bias)
        self.qkv_dwconv = _depthwise(3 * channels, bias=bias) if depthwise else None
        self.project_out = nn.Conv2d(channels, channels, 1, bias=bias)

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """The attention of x; with a map of the same shape as ``context``, keys and values come from that."""
        dwconv = self.qkv_dwconv
        return ops.transposed_attention(
            x,
            (self.qkv.weight, self.qkv.bias),
            None if dwconv is None else (dwconv.weight, dwconv.bias),
            self.temperature,
            (self.project_out.weight, self.project_out.bias),
            groups=self.groups,
            context=context,
            scale=self.scale,
            recompute=self.recompute,
        )


class ChannelAttention(nn.Module):
    """Grouped channel attention (C-GA, AICR eq. 1-3) with its norm and residual: x + C-GA(LN x).

    Queries and keys are L2-normalised over the picture and scaled by a learned temperature per group (the
    released code's rule); the C_g x C_g attention map of each group is shared by every pixel.

    Shapes: (B, ``channels``, H, W) to the same. ``groups`` divides ``channels``, or ValueError.

    Keys of the ``state_dict``: ``norm``, ``temperature`` (groups,), ``qkv``, ``qkv_dwconv``, ``project_out``.
    """

    def __init__(self, channels: int, groups: int, *, recompute: bool = False) -> None:
        super().__init__()
        check_groups(channels, groups)
        self.groups, self.recompute = groups, recompute
        self.norm = LayerNorm2d(channels)
        self.temperature = nn.Parameter(torch.ones(groups))
        self.qkv = nn.Conv2d(channels, 3 * channels, 1, bias=False)
        self.qkv_dwconv = _depthwise(3 * channels)
        self.project_out = nn.Conv2d(channels, channels, 1, bias=False)

    def forward(self, x: Tensor, *, overwrite: bool = False) -> Tensor:
        """``overwrite``: without gradients, x may be lost; the result then takes its memory."""
        return ops.channel_attention(
            x,
            self.norm.weight,
            self.qkv.weight,
            self.qkv_dwconv.weight,
            self.temperature,
            self.project_out.weight,
            groups=self.groups,
            eps=self.norm.eps,
            recompute=self.recompute,
            overwrite=overwrite,
        )


class SpatialAttention(nn.Module):
    """Decoupled depthwise spatial attention (S-DA, AICR eq. 4-5) with its norm and residual: x + S-DA(LN x).

    The map a = K x 1 after 1 x K depthwise convolutions, each behind a GELU, multiplies a projected value.

    Shapes: (B, ``channels``, H, W) to the same. ``kernel`` is 3, 5 or 7, or ValueError.

    Keys of the ``state_dict``: ``norm``, ``project_attn``, ``dwconv_row``, ``dwconv_col``, ``project_value``,
    ``project_out``.
    """

    def __init__(self, channels: int, kernel: int = 5, *, recompute: bool = False) -> None:
        super().__init__()
        if kernel not in (3, 5, 7):
            raise ValueError(f"kernel must be 3, 5 or 7, got {kernel}")
        self.recompute = recompute
        self.norm = LayerNorm2d(channels)
        self.project_attn = nn.Conv2d(channels, channels, 1)
        self.dwconv_row = _depthwise(channels, (1, kernel))
        self.dwconv_col = _depthwise(channels, (kernel, 1))
        self.project_value = nn.Conv2d(channels, channels, 1)
        self.project_out = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor, *, overwrite: bool = False) -> Tensor:
        """``overwrite``: without gradients, x may be lost; the result then takes its memory."""
        return ops.spatial_attention(
            x,
            self.norm.weight,
            (self.project_attn.weight, self.project_attn.bias),
            self.dwconv_row.weight,
            self.dwconv_col.weight,
            (self.project_value.weight, self.project_value.bias),
            (self.project_out.weight, self.project_out.bias),
            eps=self.norm.eps,
            recompute=self.recompute,
            overwrite=overwrite,
        )


def check_groups(channels: int, groups: int) -> None:
    """ValueError unless the groups share the channels evenly."""
    if groups < 1 or channels % groups:
        raise ValueError(f"groups must divide the {channels} channels, got {groups}")
