"""The hybrid-attention transformer block (HATB), as in the paper's figure 3; its parts are in :mod:`aicr_ext.nn`.

Feature maps are (B, C, H, W). On a CPU everything here is written for the channels-last memory format.
"""

from __future__ import annotations

from torch import Tensor, nn

from aicr_ext.nn import ChannelAttention, GatedFeedForward, SpatialAttention

__all__ = ["HybridBlock"]


class HybridBlock(nn.Module):
    """HATB: channel attention, then spatial attention, then the gated feed-forward, each with its own residual."""

    def __init__(self, channels: int, groups: int, kernel: int, expansion: float) -> None:
        super().__init__()
        self.channel_attention = ChannelAttention(channels, groups)
        self.spatial_attention = SpatialAttention(channels, kernel)
        self.feed_forward = GatedFeedForward(channels, expansion)

    def forward(self, x: Tensor, *, overwrite: bool = False) -> Tensor:
        """``overwrite``: without gradients, x may be lost, and what the parts compute too; results take its memory."""
        x = self.channel_attention(x, overwrite=overwrite)
        x = self.spatial_attention(x, overwrite=overwrite)
        return self.feed_forward(x, overwrite=overwrite)
