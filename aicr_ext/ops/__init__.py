"""Operations of the network as functions: each with a plain-torch definition, some with native kernels."""

from aicr_ext.ops import block_operators  # noqa: F401 (registers them)
from aicr_ext.ops.blocks import (
    Norm,
    channel_attention,
    gated_convolutions,
    gated_feed_forward,
    spatial_attention,
    transposed_attention,
)
from aicr_ext.ops.channel_gram import channel_gram
from aicr_ext.ops.convolution import steady_convolution
from aicr_ext.ops.decoupled_attention import decoupled_attention
from aicr_ext.ops.depthwise_gram import depthwise_gram
from aicr_ext.ops.fold_channel_attention import fold_channel_attention
from aicr_ext.ops.gated_depthwise_conv3x3 import gated_depthwise_conv3x3
from aicr_ext.ops.gelu import gelu
from aicr_ext.ops.gelu_gate import gelu_gate
from aicr_ext.ops.layer_norm2d import layer_norm2d
from aicr_ext.ops.layer_norm_conv1x1 import layer_norm_conv1x1, layer_norm_conv1x1_pair
from aicr_ext.ops.pixel_shuffle import pixel_shuffle, pixel_unshuffle
from aicr_ext.ops.pointwise import pointwise_convolution

__all__ = [
    "Norm",
    "channel_attention",
    "channel_gram",
    "decoupled_attention",
    "depthwise_gram",
    "fold_channel_attention",
    "gated_convolutions",
    "gated_depthwise_conv3x3",
    "gated_feed_forward",
    "gelu",
    "gelu_gate",
    "layer_norm2d",
    "layer_norm_conv1x1",
    "layer_norm_conv1x1_pair",
    "pixel_shuffle",
    "pixel_unshuffle",
    "pointwise_convolution",
    "spatial_attention",
    "steady_convolution",
    "transposed_attention",
]
