"""Operators with CUDA kernels as their tests see them: where they run, on what, and what they should give."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from emulation import LIBRARY, emulated
from op_cases import LAYOUTS
from seeds import SEED
from torch import Tensor

from aicr_ext import _native
from aicr_ext.ops import reference

#: Where kernels run: on the host, or on a GPU.
PLACES = [
    pytest.param("emulated", marks=pytest.mark.skipif(LIBRARY is None, reason="built without AICR_EMULATION")),
    pytest.param(
        "cuda",
        marks=[
            pytest.mark.gpu,
            pytest.mark.skipif(not (torch.cuda.is_available() and _native.HAS_CUDA_OPS), reason="no CUDA device"),
        ],
    ),
]
DTYPES = [torch.float32, torch.bfloat16, torch.float16]


@dataclass(frozen=True)
class Operator:
    """An operator, and what to call it with: ``arguments`` draws them for a shape and a variant, in float32."""

    name: str
    shapes: Sequence[tuple[int, ...]]
    variants: Sequence[tuple[Any, ...]]
    arguments: Callable[..., tuple[Any, ...]]
    reference: Callable[..., Any]
    maps: int = 1  # so many arguments, the first ones, are feature maps, and so is what it gives
    exact: bool = True  # every result is a function of a few values, and in 16 bits nothing but rounding differs

    def cases(self) -> list[tuple[Any, ...]]:
        return [(self, shape, variant) for shape in self.shapes for variant in self.variants]


def draw(*size: int, seed: int = 0) -> Tensor:
    return torch.randn(*size, generator=torch.Generator().manual_seed(SEED + seed + sum(size)))


def layer_norm2d_arguments(shape, subtract_mean, with_bias):
    return 0.5 + draw(*shape), draw(shape[1]), draw(shape[1], seed=1) if with_bias else None, subtract_mean, 1e-5


def layer_norm2d_backward_arguments(shape, subtract_mean, with_bias):
    return draw(*shape, seed=2), 0.5 + draw(*shape), draw(shape[1]), with_bias, subtract_mean, 1e-5


def gelu_gate_arguments(shape):
    return (3 * draw(*shape),)


def gelu_gate_backward_arguments(shape):
    return draw(shape[0], shape[1] // 2, *shape[2:]), 3 * draw(*shape)


def depthwise_arguments(shape, last, with_bias):
    return draw(*shape), draw(shape[1], 1, 3, 3), draw(shape[1], seed=1) if with_bias else None, last


def projected_arguments(shape, outputs, second, with_bias):
    """For layer_norm_conv1x1: outputs of both convolutions (0: there is no second), and with all biases or none."""
    c, norm = shape[1], layer_norm2d_arguments(shape, with_bias, with_bias)

    def projection(count, seed):
        if not count:
            return None, None
        weight = draw(count, c, 1, 1, seed=seed) * max(c, 1) ** -0.5
        return weight, draw(count, seed=seed) if with_bias else None

    return (*norm[:3], *projection(outputs, 2), *projection(second, 3), *norm[3:])


def gated_depthwise_backward_arguments(shape, gelu, with_bias):
    return draw(shape[0], shape[1] // 2, *shape[2:], seed=2), *depthwise_arguments(shape, gelu, with_bias)


def depthwise_backward_arguments(shape, with_bias):
    return draw(*shape, seed=2), draw(*shape), draw(shape[1], 1, 3, 3), with_bias


# Vectors that fill a part of a warp, a warp and more; more channels than registers hold; partly filled warps.
NORMS = [
    (1, 1, 1, 1),
    (3, 5, 9, 1),
    (2, 1, 33, 17),
    (3, 7, 7, 21),
    (2, 64, 6, 24),
    (1, 192, 3, 11),
    (1, 600, 5, 9),
    (1, 1056, 1, 3),
]
# Channels that fill steps of the product and not, of one piece of weights and of several, up to the most; tiles of
# pixels of more than one picture; outputs of one tile and of several, in vectors and not, shared by blocks.
PROJECTED = [(1, 1, 1, 1), (3, 5, 9, 1), (2, 1, 33, 17), (3, 24, 7, 8), (2, 72, 6, 24), (1, 136, 5, 8), (1, 384, 3, 11)]
GATES = [(1, 2, 1, 1), (3, 10, 9, 1), (2, 2, 33, 17), (1, 64, 5, 7)]
OPERATORS = [
    Operator(
        "layer_norm2d",
        NORMS,
        [(False, False), (True, True)],
        layer_norm2d_arguments,
        lambda x, weight, bias, subtract_mean, eps: reference.layer_norm2d_reference(
            x, weight, eps, bias=bias, subtract_mean=subtract_mean
        ),
        exact=False,
    ),
    Operator(
        "layer_norm2d_backward",
        NORMS,
        [(False, False), (True, True)],
        layer_norm2d_backward_arguments,
        reference.layer_norm2d_backward_reference,
        maps=2,
        exact=False,
    ),
    Operator("gelu_gate", GATES, [()], gelu_gate_arguments, reference.gelu_gate_reference),
    Operator(
        "gelu_gate_backward",
        GATES,
        [()],
        gelu_gate_backward_arguments,
        reference.gelu_gate_backward_reference,
        maps=2,
    ),
    # More rows than a block has, single rows and columns, odd channels, more columns and channels than threads.
    Operator(
        "gated_depthwise_conv3x3",
        [(1, 2, 1, 1), (3, 10, 9, 1), (1, 6, 1, 9), (2, 2, 33, 17), (3, 14, 37, 5), (1, 128, 6, 9), (1, 66, 4, 3)],
        [(True, False), (False, True)],
        depthwise_arguments,
        reference.gated_depthwise_conv3x3_reference,
    ),
    # Single rows and columns, odd channels; more rows, columns and channels than a block has.
    Operator(
        "gated_depthwise_conv3x3_backward",
        [(1, 2, 1, 1), (3, 10, 9, 1), (1, 6, 1, 9), (2, 2, 33, 17), (3, 14, 37, 5), (1, 36, 10, 67), (1, 70, 4, 3)],
        [(True, False), (False, True)],
        gated_depthwise_backward_arguments,
        reference.gated_depthwise_conv3x3_backward_reference,
        maps=2,
    ),
    Operator(
        "depthwise_conv3x3_backward",
        [(1, 1, 1, 1), (3, 5, 9, 1), (1, 3, 1, 9), (2, 1, 33, 17), (3, 7, 37, 5), (1, 18, 10, 67), (1, 35, 4, 3)],
        [(False,), (True,)],
        depthwise_backward_arguments,
        reference.depthwise_conv3x3_backward_reference,
        maps=2,
    ),
    # Groups that fill their block and do not, odd ones, of every size of block, of more than one block of scores; more
    # rows and columns than a tile has, in one variant as many groups as there are channels.
    Operator(
        "depthwise_gram",
        [(1, 2, 1, 1), (3, 12, 9, 1), (1, 36, 1, 9), (2, 32, 17, 35), (1, 80, 18, 5), (1, 132, 5, 6), (1, 140, 3, 4)],
        [(1, False), (2, True)],
        lambda shape, groups, with_bias: depthwise_arguments(shape, 1 if shape[1] // 2 % 2 else groups, with_bias),
        reference.depthwise_gram_reference,
        exact=False,
    ),
    Operator(
        "layer_norm_conv1x1",
        PROJECTED,
        [(40, 0, False), (3, 5, True), (72, 136, True)],
        projected_arguments,
        reference.layer_norm_conv1x1_reference,
        exact=False,
    ),
]
CASES = [case for operator in OPERATORS for case in operator.cases()]


def fold_arguments(
    batch: int = 2,
    groups: int = 3,
    depth: int = 4,
    outputs: int = 5,
    dtype: torch.dtype = torch.float32,
    place: str = "cpu",
) -> tuple[Tensor, ...]:
    """For fold_channel_attention: scores of random queries and keys, in float32 at least, and weights of this dtype."""
    q, k = (draw(batch, groups, depth, 20, seed=seed).to(torch.promote_types(dtype, torch.float32)) for seed in (0, 1))
    weight = draw(outputs, groups * depth, 1, 1).to(dtype)
    temperature = (1 + draw(groups, 1, 1).abs()).to(dtype)
    args = (q @ k.transpose(2, 3), q.square().sum(3), k.square().sum(3), temperature, weight)
    return tuple(a.to("cuda" if place == "cuda" else "cpu") for a in args)


def named(value: Any) -> str | None:
    """What a parameter is called in the name of a test."""
    if isinstance(value, Operator):
        return value.name
    return str(value).removeprefix("torch.") if isinstance(value, torch.dtype | tuple) else None


def placed(operator: Operator, args: tuple[Any, ...], dtype: torch.dtype, layout: str, place: str) -> tuple[Any, ...]:
    """Arguments in this dtype, the maps among them in this layout, where the kernels can reach them."""
    device = "cuda" if place == "cuda" else "cpu"
    tensors = [a.to(device, dtype) if isinstance(a, Tensor) else a for a in args]
    maps = [t.contiguous(memory_format=LAYOUTS[layout]) for t in tensors[: operator.maps]]
    return (*maps, *tensors[operator.maps :])


def example(
    operator: Operator, dtype: torch.dtype, layout: str, place: str, shape: tuple[int, ...] = (3, 16, 12, 14)
) -> tuple[Any, ...]:
    """What the operator can be called with at this shape."""
    return placed(operator, operator.arguments(shape, *operator.variants[-1]), dtype, layout, place)


def run(name: str, args: tuple[Any, ...], place: str) -> tuple[Tensor, ...]:
    """What the kernels give, as a tuple."""
    operator = getattr(torch.ops.aicr_ext, name) if place == "cuda" else emulated(name)
    return as_tuple(operator(*args))


def as_tuple(out: Any) -> tuple[Tensor, ...]:
    return (out,) if isinstance(out, Tensor) else tuple(out)


def wide(args: tuple[Any, ...]) -> tuple[Any, ...]:
    return tuple(a.double() if isinstance(a, Tensor) else a for a in args)
