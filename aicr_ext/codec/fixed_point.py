"""Float weights to integers: weights on their grids, and the proof that no sum overflows.

A tensor v of fixed-point numbers with exponent e stands for v · 2**-e (:mod:`aicr_ext.ops.integer`). All scales are
powers of two, so that weights become integers by exact operations alone: every machine makes the same ones of a weight
file.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from aicr_ext.ops.integer import integer_depthwise, integer_linear

__all__ = [
    "ASINH_EXPONENT",
    "LIMIT",
    "Depthwise",
    "Linear",
    "asinh_table",
    "depthwise",
    "exponent_for",
    "linear",
    "per_channel",
    "power_of_two",
]

#: Fixed-point numbers are int16 and saturate here.
LIMIT = 32767
#: Exponent of asinh(y).
ASINH_EXPONENT = 11

_INT32 = 2**31
_HIGHEST = 12
_SLOPE_ONE = 1 << 15


def exponent_for(largest: float) -> int:
    """The exponent, 0 to 12, under which numbers four times the largest one seen still fit."""
    if not largest > 0:
        return _HIGHEST
    return max(0, min(_HIGHEST, math.floor(math.log2(LIMIT / (4 * largest)))))


@dataclass
class Linear:
    """A 1x1 convolution with all that follows it; arguments of :func:`aicr_ext.ops.integer.integer_linear`."""

    weight: Tensor
    bias: Tensor
    shift: Tensor
    slope: Tensor
    residual_shift: Tensor

    def __call__(self, x: Tensor, residual: Tensor | None = None) -> Tensor:
        shift = None if residual is None else self.residual_shift
        return integer_linear(x, self.weight, self.bias, self.shift, self.slope, residual, shift)


@dataclass
class Depthwise:
    """A depthwise 3x3 convolution; arguments of :func:`aicr_ext.ops.integer.integer_depthwise`."""

    weight: Tensor
    bias: Tensor
    shift: Tensor

    def __call__(self, x: Tensor) -> Tensor:
        """Of pictures (B, H, W, C)."""
        if len(x) == 1:
            return integer_depthwise(x[0], self.weight, self.bias, self.shift)[None]
        # One below the other as a single one: the row of zeros above each is what its edges and its neighbour's see.
        apart = F.pad(x, (0, 0, 0, 0, 1, 0))
        out = integer_depthwise(apart.flatten(0, 1), self.weight, self.bias, self.shift)
        return out.view_as(apart)[:, 1:]


def power_of_two(exponent: Tensor) -> Tensor:
    """2**exponent in float64 of integers from -62 to 62, exactly; a library's exp2 may not be."""
    power = (torch.ones_like(exponent, dtype=torch.int64) << exponent.long().abs()).double()
    return torch.where(exponent < 0, 1 / power, power)


def linear(
    name: str,
    weight: Tensor,
    bias: Tensor,
    inputs: Tensor | int,
    outputs: Tensor | int,
    slope: Tensor | float = 1.0,
    residual: Tensor | int | None = None,
) -> Linear:
    """The integers of a matrix (O, K) and a bias (O,).

    Args:
        name: of the layer, for errors.
        inputs, outputs, residual: exponents, one for all channels or one for each.
        slope: of the leaky ReLU behind it; 1 for none.

    Raises:
        ValueError: an odd K, or weights so large that the result would have to be shifted to the left.
    """
    if weight.shape[1] % 2:
        raise ValueError(f"{name}: integer products take inputs in pairs, got {weight.shape[1]}")
    out = per_channel(outputs, weight.shape[0])
    whole, grid_bias, shift = _on_grid(name, weight, bias, per_channel(inputs, weight.shape[1]), out)
    pairs = whole.T.unflatten(0, (-1, 2)).transpose(1, 2)
    slopes = torch.round(per_channel(slope, len(out)).double() * _SLOPE_ONE)
    aligned = torch.zeros_like(out) if residual is None else per_channel(residual, len(out)) - out
    if not aligned.abs().max() <= 15:
        raise ValueError(f"{name}: exponents of the residual and of the sum differ by more than 15")
    return Linear(_int16(pairs), _int32(grid_bias), _int32(shift), _int32(slopes), _int32(aligned))


def depthwise(name: str, module: nn.Conv2d, inputs: int, outputs: int) -> Depthwise:
    """The integers of a depthwise 3x3 convolution; errors as of :func:`linear`."""
    channels = len(module.weight)
    flat = module.weight.flatten(1)
    out = per_channel(outputs, channels)
    whole, bias, shift = _on_grid(name, flat, module.bias, per_channel(inputs, flat.shape[1]), out)
    return Depthwise(_int16(whole.T), _int32(bias), _int32(shift))


def _on_grid(name: str, weight: Tensor, bias: Tensor, inputs: Tensor, outputs: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Integer weights (O, K) and bias (O,), and the shift to the exponents of the outputs; float64.

    The sums of an output have the largest exponent for which the weights fit int16 and no sum can leave int32,
    whatever the inputs.
    """
    weight, bias, unit = weight.detach().double(), bias.detach().double(), power_of_two(-inputs)
    largest = (weight.abs() * unit).sum(1) * LIMIT + bias.abs()
    exponent = torch.frexp(_INT32 / largest.clamp_min(2.0**-30)).exponent - 1
    of_weights = torch.frexp(LIMIT / (weight.abs() * unit).amax(1).clamp_min(2.0**-60)).exponent - 1
    exponent = torch.minimum(torch.minimum(exponent, of_weights), outputs + 31)
    while True:
        grid = power_of_two(exponent)
        whole, whole_bias = torch.round(weight * unit * grid[:, None]), torch.round(bias * grid)
        half = power_of_two(exponent - outputs - 1)
        too_large = whole.abs().sum(1) * LIMIT + whole_bias.abs() + half >= _INT32
        too_large |= whole.abs().amax(1) > LIMIT
        if not too_large.any():
            break
        exponent = exponent - too_large.to(exponent.dtype)
    if (exponent - outputs).min() < 1:
        raise ValueError(f"{name}: weights too large for sums in 32 bits, up to {float(weight.abs().max()):.3g}")
    return whole, whole_bias, exponent - outputs


def per_channel(value: Tensor | float, size: int) -> Tensor:
    """One number for all channels, or one for each, as (size,)."""
    value = torch.as_tensor(value)
    return value.expand(size) if value.dim() == 0 else value


def _int16(value: Tensor) -> Tensor:
    return value.to(torch.int16).contiguous()


def _int32(value: Tensor) -> Tensor:
    return value.to(torch.int32).contiguous()


@cache
def asinh_table() -> Tensor:
    """(1025,) int32: asinh of 2**o · (1 + p / 64) - 1 at 64 o + p, exponent 16; of exact operations only."""
    place = torch.arange(16 * 64 + 1, device="cpu")
    x = power_of_two(place // 64) * (1 + (place % 64).double() / 64) - 1
    return torch.round(_asinh(x) * 2**16).int()


def _asinh(x: Tensor) -> Tensor:
    """ln(x + sqrt(x² + 1)) of float64 of at least 0, from correctly rounded operations only; error below 1e-15."""
    mantissa, exponent = torch.frexp(x + torch.sqrt(x * x + 1.0))
    # mantissa in [0.5, 1): ln m = 2 artanh((m - 1) / (m + 1)), by its series; s² is at most 1/9.
    s = (mantissa - 1.0) / (mantissa + 1.0)
    square = s * s
    series = torch.full_like(s, 1 / 35)
    for k in range(33, 0, -2):
        series = series * square
        series = series + 1 / k
    logarithm = series * s
    logarithm = logarithm + logarithm
    return logarithm + exponent.double() * 0.6931471805599453
