"""The hybrid-attention transformer block (HATB) and its four parts, as in the paper's figure 3.

Feature maps are (B, C, H, W). On a CPU everything here is written for the channels-last memory format.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from aicr_ext import ops

__all__ = ["ChannelAttention", "GatedFeedForward", "HybridBlock", "LayerNorm2d", "SpatialAttention"]


class LayerNorm2d(nn.Module):
    """Bias-free layer norm over channels: x / sqrt(var(x) + eps) * weight; the mean is not subtracted.

    Shapes: (B, C, H, W) to the same. Source: Restormer's ``BiasFree_LayerNorm``, as AICR uses it.
    """

    def __init__(self, channels: int, eps: float = 1e-5) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(channels))

    def forward(self, x: Tensor) -> Tensor:
        return ops.layer_norm2d(x, self.weight, self.eps)


class ChannelAttention(nn.Module):
    """Grouped channel attention (C-GA, eq. 1-3) with its norm and residual: x + C-GA(LN x).

    Queries and keys are L2-normalised over the picture and scaled by a learned temperature per group (the
    released code's rule); the C_g x C_g attention map of each group is shared by every pixel.
    """

    def __init__(self, channels: int, groups: int) -> None:
        super().__init__()
        self.groups = groups
        self.norm = LayerNorm2d(channels)
        self.temperature = nn.Parameter(torch.ones(groups))
        self.qkv = nn.Conv2d(channels, 3 * channels, 1, bias=False)
        self.qkv_dwconv = nn.Conv2d(3 * channels, 3 * channels, 3, padding=1, groups=3 * channels, bias=False)
        self.project_out = nn.Conv2d(channels, channels, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return ops.channel_attention(
            x,
            self.norm.weight,
            self.qkv.weight,
            self.qkv_dwconv.weight,
            self.temperature,
            self.project_out.weight,
            groups=self.groups,
            eps=self.norm.eps,
        )


class SpatialAttention(nn.Module):
    """Decoupled depthwise spatial attention (S-DA, eq. 4-5) with its norm and residual: x + S-DA(LN x).

    The map a = K x 1 after 1 x K depthwise convolutions, each behind a GELU, multiplies a projected value.
    """

    def __init__(self, channels: int, kernel: int) -> None:
        super().__init__()
        self.norm = LayerNorm2d(channels)
        self.project_attn = nn.Conv2d(channels, channels, 1)
        self.dwconv_row = nn.Conv2d(
            channels, channels, (1, kernel), padding=(0, kernel // 2), groups=channels, bias=False
        )
        self.dwconv_col = nn.Conv2d(
            channels, channels, (kernel, 1), padding=(kernel // 2, 0), groups=channels, bias=False
        )
        self.project_value = nn.Conv2d(channels, channels, 1)
        self.project_out = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        return ops.spatial_attention(
            x,
            self.norm.weight,
            (self.project_attn.weight, self.project_attn.bias),
            self.dwconv_row.weight,
            self.dwconv_col.weight,
            (self.project_value.weight, self.project_value.bias),
            (self.project_out.weight, self.project_out.bias),
            eps=self.norm.eps,
        )


class GatedFeedForward(nn.Module):
    """Gated depthwise feed-forward (GDFN) with its norm and residual: x + GDFN(LN x)."""

    def __init__(self, channels: int, expansion: float) -> None:
        super().__init__()
        hidden = int(expansion * channels)
        self.norm = LayerNorm2d(channels)
        self.project_in = nn.Conv2d(channels, 2 * hidden, 1, bias=False)
        self.dwconv = nn.Conv2d(2 * hidden, 2 * hidden, 3, padding=1, groups=2 * hidden, bias=False)
        self.project_out = nn.Conv2d(hidden, channels, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return ops.gated_feed_forward(
            x,
            self.norm.weight,
            self.project_in.weight,
            self.dwconv.weight,
            self.project_out.weight,
            eps=self.norm.eps,
        )


class HybridBlock(nn.Module):
    """HATB: channel attention, then spatial attention, then the gated feed-forward, each with its own residual."""

    def __init__(self, channels: int, groups: int, kernel: int, expansion: float) -> None:
        super().__init__()
        self.channel_attention = ChannelAttention(channels, groups)
        self.spatial_attention = SpatialAttention(channels, kernel)
        self.feed_forward = GatedFeedForward(channels, expansion)

    def forward(self, x: Tensor) -> Tensor:
        return self.feed_forward(self.spatial_attention(self.channel_attention(x)))
