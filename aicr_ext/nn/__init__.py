"""The operators of :mod:`aicr_ext.ops` with their parameters, for the networks here and for others."""

from aicr_ext.nn.attention import ChannelAttention, SpatialAttention, TransposedAttention
from aicr_ext.nn.feed_forward import GatedConvolutions, GatedFeedForward
from aicr_ext.nn.norm import LayerNorm2d
from aicr_ext.nn.steady import GELU, PointwiseConv2d, SteadyConv2d

__all__ = [
    "GELU",
    "ChannelAttention",
    "GatedConvolutions",
    "GatedFeedForward",
    "LayerNorm2d",
    "PointwiseConv2d",
    "SpatialAttention",
    "SteadyConv2d",
    "TransposedAttention",
]
