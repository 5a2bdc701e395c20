"""Arguments of every operator at a shape of one's choice."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from aicr_ext.profiling.capture import Call

__all__ = ["CASES", "make_call"]

Shape = tuple[int, ...]
Draw = Callable[..., Tensor]


def _channel_gram(shape: Shape, draw: Draw) -> list:
    return [draw(shape), draw(shape), 4 if shape[1] % 4 == 0 else 1]


def _decoupled_attention(shape: Shape, draw: Draw) -> list:
    channels = shape[1]
    return [draw(shape), draw(shape), draw((channels, 1, 1, 5)), draw((channels, 1, 5, 1))]


def _depthwise_gram(shape: Shape, draw: Draw) -> list:
    groups = 4 if shape[1] % 8 == 0 else 1
    return [draw(shape), draw((shape[1], 1, 3, 3)), None, groups]


def _fold_channel_attention(shape: Shape, draw: Draw) -> list:
    """For a map of so many channels in four groups, of scores and norms as a few pixels give them."""
    batch, channels = shape[:2]
    depth = channels // 4
    if 4 * depth != channels:
        raise ValueError(f"fold_channel_attention: channels must be a multiple of 4 here, got {channels}")
    scores = draw((batch, 4, depth, depth)).float()
    norms = [draw((batch, 4, depth)).float().abs() + 1 for _ in range(2)]
    return [scores, *norms, draw((4,)), draw((channels, channels, 1, 1))]


def _gated_depthwise_conv3x3(shape: Shape, draw: Draw) -> list:
    return [draw(shape), draw((shape[1], 1, 3, 3)), None, True]


def _gelu_gate(shape: Shape, draw: Draw) -> list:
    return [draw(shape)]


def _layer_norm2d(shape: Shape, draw: Draw) -> list:
    return [draw(shape), draw((shape[1],)), None, False, 1e-5]


def _layer_norm_conv1x1(shape: Shape, draw: Draw) -> list:
    c = shape[1]
    return [draw(shape), draw((c,)), None, draw((3 * c, c, 1, 1)), None, None, None, False, 1e-5]


def _transposed_attention(shape: Shape, draw: Draw) -> list:
    c = shape[1]
    norm, projections = [draw((c,)), None], [draw((3 * c, c, 1, 1)), None, draw((3 * c, 1, 3, 3)), None]
    groups = 4 if c % 4 == 0 else 1
    return [draw(shape), None, *norm, *projections, draw((groups,)), draw((c, c, 1, 1)), None, groups, *_ATTENTION]


_ATTENTION = (None, False, 1e-5, True)  # scale, subtract_mean, eps, residual


def _spatial_attention(shape: Shape, draw: Draw) -> list:
    c = shape[1]
    square, bias = (c, c, 1, 1), (c,)
    first = [draw(shape), draw(bias), draw(square), draw(bias), draw((c, 1, 1, 5)), draw((c, 1, 5, 1))]
    return [*first, draw(square), draw(bias), draw(square), draw(bias), 1e-5]


def _gated_convolutions(shape: Shape, draw: Draw) -> list:
    c = shape[1]
    hidden = int(2.66 * c)
    weights = [draw((2 * hidden, c, 1, 1)), None, draw((2 * hidden, 1, 3, 3)), None, draw((c, hidden, 1, 1)), None]
    return [draw(shape), draw((c,)), None, *weights, True, False, 1e-5, True]


#: The arguments, as the schema has them, that go with a feature map of some shape; ``draw`` makes tensors.
CASES: dict[str, Callable[[Shape, Draw], list]] = {
    "channel_gram": _channel_gram,
    "decoupled_attention": _decoupled_attention,
    "depthwise_gram": _depthwise_gram,
    "fold_channel_attention": _fold_channel_attention,
    "gated_convolutions": _gated_convolutions,
    "gated_depthwise_conv3x3": _gated_depthwise_conv3x3,
    "gelu_gate": _gelu_gate,
    "layer_norm2d": _layer_norm2d,
    "layer_norm_conv1x1": _layer_norm_conv1x1,
    "spatial_attention": _spatial_attention,
    "transposed_attention": _transposed_attention,
}


def make_call(name: str, shape: Shape, dtype: torch.dtype = torch.float32, channels_last: bool = True) -> Call:
    """A call of an operator with numbers drawn from a normal distribution, always the same ones, on the CPU.

    Args:
        name: one of :data:`CASES`.
        shape: (B, C, H, W) of its feature maps.
        channels_last: memory format of the feature maps.

    Raises:
        ValueError: an unknown operator, or a shape that is not four numbers from 1.
    """
    if name not in CASES:
        raise ValueError(f"unknown operator {name!r}; known: {', '.join(sorted(CASES))}")
    if len(shape) != 4 or min(shape) < 1:
        raise ValueError(f"shape must be four numbers from 1, (B, C, H, W), got {tuple(shape)}")
    generator = torch.Generator().manual_seed(0)

    def draw(size: Shape) -> Tensor:
        drawn = torch.randn(size, generator=generator).to(dtype)
        if len(size) == 4 and size != shape:
            drawn *= math.prod(size[1:]) ** -0.5  # a convolution's weight: results of the size of its input
        return drawn.contiguous(memory_format=torch.channels_last) if channels_last and size == shape else drawn

    return Call(name, CASES[name](tuple(shape), draw))
