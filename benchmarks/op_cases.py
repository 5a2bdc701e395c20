"""What ``benchmarks.ops`` measures: operators, shapes, arguments."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from aicr_ext.ops import (
    channel_gram,
    decoupled_attention,
    depthwise_gram,
    fold_channel_attention,
    gated_depthwise_conv3x3,
    gelu_gate,
    layer_norm2d,
    layer_norm_conv1x1,
    pointwise_convolution,
)
from aicr_ext.ops import reference as plain
from aicr_ext.ops.blocks import (
    composed_gated_convolutions,
    composed_spatial_attention,
    composed_transposed_attention,
)
from aicr_ext.ops.depthwise_conv3x3 import depthwise_conv3x3

__all__ = ["BLOCK_CHANNELS", "CASES", "CUDA_CASES", "LAYOUTS", "QUICK_CASES", "Case", "in_layout"]

LAYOUTS = {"nchw": torch.contiguous_format, "channels_last": torch.channels_last}
#: Widths of aicr-s, aicr-t, aicr-l and Restormer.
BLOCK_CHANNELS = (32, 48, 64, 96, 128, 192, 256, 384)

Shape = tuple[int, int, int, int]


@dataclass(frozen=True)
class Case:
    """One operator at one shape.

    Attributes:
        native, reference: the operator and its definition, functions of the same tensors.
        sizes: of these tensors; None for one that is not given.
        prepare: makes what the operator asks for of what was drawn.
        layouts: of the maps, in which the operator is measured; the definition is in all.
    """

    op: str
    shape: Shape
    native: Callable[..., Tensor | tuple[Tensor, ...]]
    reference: Callable[..., Tensor | tuple[Tensor, ...]]
    sizes: tuple[tuple[int, ...] | None, ...]
    layouts: tuple[str, ...] = tuple(LAYOUTS)
    prepare: Callable[..., tuple[Tensor | None, ...]] = lambda *drawn: drawn

    def arguments(self, dtype: torch.dtype, device: str) -> tuple[Tensor | None, ...]:
        """Always the same values; weights so small that the result is about as large as the maps."""
        generator = torch.Generator().manual_seed(0)

        def draw(size: tuple[int, ...]) -> Tensor:
            t = torch.randn(size, generator=generator)
            if len(size) == 4 and size != self.shape:
                t *= math.prod(size[1:]) ** -0.5
            return t.to(device, dtype)

        return self.prepare(*(None if size is None else draw(size) for size in self.sizes))


def in_layout(args: tuple[Tensor | None, ...], layout: str) -> tuple[Tensor | None, ...]:
    """Feature maps in a layout; weights, which have one input channel or one pixel, as they are."""

    def place(t: Tensor | None) -> Tensor | None:
        if t is None or t.dim() < 4 or t.shape[1] == 1 or t.shape[2:] == (1, 1):
            return t
        return t.contiguous(memory_format=LAYOUTS[layout])

    return tuple(map(place, args))


def decoupled_attention_case(shape: Shape, taps: int = 5) -> Case:
    sizes = (shape, shape, (shape[1], 1, 1, taps), (shape[1], 1, taps, 1))
    return Case("decoupled_attention", shape, decoupled_attention, plain.decoupled_attention_reference, sizes)


def layer_norm2d_case(shape: Shape) -> Case:
    return Case("layer_norm2d", shape, layer_norm2d, plain.layer_norm2d_reference, (shape, (shape[1],)))


def gated_depthwise_conv3x3_case(shape: Shape) -> Case:
    reference = partial(plain.gated_depthwise_conv3x3_reference, bias=None, gelu=True)
    return Case("gated_depthwise_conv3x3", shape, gated_depthwise_conv3x3, reference, (shape, (shape[1], 1, 3, 3)))


def gelu_gate_case(shape: Shape) -> Case:
    return Case("gelu_gate", shape, gelu_gate, plain.gelu_gate_reference, (shape,))


def depthwise_conv3x3_case(shape: Shape) -> Case:
    reference = partial(plain.depthwise_conv3x3_reference, bias=None)
    return Case("depthwise_conv3x3", shape, depthwise_conv3x3, reference, (shape, (shape[1], 1, 3, 3)))


def depthwise_gram_case(shape: Shape, groups: int = 4) -> Case:
    native, reference = (
        partial(op, bias=None, groups=groups) for op in (depthwise_gram, plain.depthwise_gram_reference)
    )
    return Case("depthwise_gram", shape, native, reference, (shape, (shape[1], 1, 3, 3)))


def channel_gram_case(shape: Shape, groups: int = 4) -> Case:
    """Of the halves of one map, as a convolution leaves queries and keys."""

    def halves(gram: Callable[..., tuple[Tensor, ...]]) -> Callable[[Tensor], tuple[Tensor, ...]]:
        return lambda qk: gram(*qk.chunk(2, 1), groups=groups)

    return Case("channel_gram", shape, halves(channel_gram), halves(plain.channel_gram_reference), (shape,))


def fold_channel_attention_case(channels: int, groups: int = 4) -> Case:
    """Of one picture: scores and norms as sums over a few pixels give them, in float32."""
    depth = channels // groups
    shape = (1, groups, depth, depth)
    sizes = (shape, (1, groups, depth), (1, groups, depth), (groups,), (channels, channels, 1, 1))

    def prepare(scores: Tensor, q_norm: Tensor, k_norm: Tensor, *weights: Tensor) -> tuple[Tensor, ...]:
        return scores.float(), q_norm.float().abs() + 1, k_norm.float().abs() + 1, *weights

    definition = plain.fold_channel_attention_reference
    one = ("nchw",)  # scores are no map
    return Case("fold_channel_attention", shape, fold_channel_attention, definition, sizes, one, prepare)


def pointwise_convolution_case(shape: Shape) -> Case:
    sizes = (shape, (3 * shape[1], shape[1], 1, 1))
    return Case("pointwise_convolution", shape, pointwise_convolution, torch.nn.functional.conv2d, sizes)


def layer_norm_conv1x1_case(shape: Shape) -> Case:
    sizes = (shape, (shape[1],), (3 * shape[1], shape[1], 1, 1))

    def reference(x: Tensor, norm_weight: Tensor, weight: Tensor) -> Tensor:
        rest = (None, weight, None, None, None, False, 1e-5)
        return plain.layer_norm_conv1x1_reference(x, norm_weight, *rest)[0]

    return Case("layer_norm_conv1x1", shape, layer_norm_conv1x1, reference, sizes)


def block(op: str, shape: Shape, sizes: tuple[tuple[int, ...] | None, ...], *options: Any) -> Case:
    """A block as functions of its tensors, with AICR's norm, residual and biases."""
    composed, defined = {
        "transposed_attention": (composed_transposed_attention, plain.transposed_attention_reference),
        "spatial_attention": (composed_spatial_attention, plain.spatial_attention_reference),
        "gated_convolutions": (composed_gated_convolutions, plain.gated_convolutions_reference),
    }[op]

    def native(*tensors: Tensor | None) -> Tensor:
        return composed(*tensors, *options, None)

    def reference(*tensors: Tensor | None) -> Tensor:
        return defined(*tensors, *options)

    return Case(op, shape, native, reference, sizes, ("channels_last",))


def block_cases(shape: Shape) -> list[Case]:
    """The three blocks of one HATB."""
    c = shape[1]
    groups = 1 << ((c // 32).bit_length() - 1)
    hidden = int(2.66 * c)
    square, bias = (c, c, 1, 1), (c,)
    attention = (shape, None, (c,), None, (3 * c, c, 1, 1), None, (3 * c, 1, 3, 3), None, (groups,), square, None)
    spatial = (shape, (c,), square, bias, (c, 1, 1, 5), (c, 1, 5, 1), square, bias, square, bias)
    gated = (shape, (c,), None, (2 * hidden, c, 1, 1), None, (2 * hidden, 1, 3, 3), None, (c, hidden, 1, 1), None)
    return [
        block("transposed_attention", shape, attention, groups, None, False, 1e-5, True),
        block("spatial_attention", shape, spatial, 1e-5),
        block("gated_convolutions", shape, gated, True, False, 1e-5, True),
    ]


def map_of(channels: int) -> Shape:
    """A square map of about 1.5 million values, sides multiples of 8."""
    side = 8 * round(math.sqrt(1.5e6 / channels) / 8)
    return (1, channels, side, side)


# The three scales of aicr-t for a picture of 768 x 512, and the first of aicr-s for a quarter of it.
SHAPES: list[Shape] = [(1, 64, 128, 192), (1, 128, 64, 96), (1, 192, 32, 48), (1, 32, 256, 384)]
CASES = [
    *map(decoupled_attention_case, SHAPES),
    *map(layer_norm2d_case, SHAPES),
    *(gated_depthwise_conv3x3_case((b, 4 * c, h, w)) for b, c, h, w in SHAPES),
    *(gelu_gate_case((b, 4 * c, h, w)) for b, c, h, w in SHAPES),
    *(depthwise_conv3x3_case((b, 3 * c, h, w)) for b, c, h, w in SHAPES),
    *(channel_gram_case((b, 2 * c, h, w)) for b, c, h, w in SHAPES),
    *map(pointwise_convolution_case, SHAPES),
    *map(layer_norm_conv1x1_case, SHAPES),
    *(case for c in BLOCK_CHANNELS for case in block_cases(map_of(c))),
]
#: Operators without a CPU kernel.
CUDA_CASES = [
    *(depthwise_gram_case((b, 2 * c, h, w)) for b, c, h, w in SHAPES),
    *(fold_channel_attention_case(c) for _, c, _, _ in SHAPES),
]
#: One small shape of every operator.
_SMALL: Shape = (1, 32, 24, 40)
QUICK_CASES = [
    decoupled_attention_case(_SMALL),
    layer_norm2d_case(_SMALL),
    gated_depthwise_conv3x3_case(_SMALL),
    gelu_gate_case(_SMALL),
    depthwise_conv3x3_case(_SMALL),
    channel_gram_case(_SMALL),
    pointwise_convolution_case(_SMALL),
    layer_norm_conv1x1_case(_SMALL),
    *block_cases(_SMALL),
]
