"""Plain-torch definitions of the integer operators (:mod:`aicr_ext.ops.integer`); every kernel equals them bit for bit.

Sums run in float64, where integers below 2**53 are exact, so the order of addition does not matter here either.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = [
    "integer_asinh_reference",
    "integer_depthwise_reference",
    "integer_gate_reference",
    "integer_linear_reference",
    "integer_sum_reference",
]

_LIMIT = 32767


def shifted(value: Tensor, shift: Tensor | int) -> Tensor:
    """int64 ``value`` · 2**-shift, rounded to nearest, halves up; a negative shift multiplies."""
    shift = torch.as_tensor(shift, dtype=torch.int64, device=value.device)
    right, left = shift.clamp_min(0), (-shift).clamp_min(0)
    half = (torch.ones_like(right) << right) >> 1
    return ((value << left) + half) >> right


def _saturated(value: Tensor) -> Tensor:
    return value.clamp(-_LIMIT, _LIMIT)


def integer_linear_reference(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    shift: Tensor,
    slope: Tensor,
    residual: Tensor | None = None,
    residual_shift: Tensor | None = None,
) -> Tensor:
    """As :func:`aicr_ext.ops.integer.integer_linear`."""
    matrix = weight.permute(0, 2, 1).flatten(0, 1)  # (K, O)
    total = (x.double() @ matrix.double()).long() + bias.long()
    value = _saturated(shifted(total, shift))
    value = torch.where(value < 0, shifted(value * slope.long(), 15), value)
    if residual is not None:
        value = _saturated(value + shifted(residual.long(), residual_shift))
    return value.to(torch.int16)


def integer_depthwise_reference(x: Tensor, weight: Tensor, bias: Tensor, shift: Tensor) -> Tensor:
    """As :func:`aicr_ext.ops.integer.integer_depthwise`."""
    height, width, _ = x.shape
    padded = F.pad(x.long(), (0, 0, 1, 1, 1, 1))
    total = bias.long().expand(height, width, -1)
    for tap in range(9):
        row, col = divmod(tap, 3)
        total = total + padded[row : row + height, col : col + width] * weight[tap].long()
    return _saturated(shifted(total, shift)).to(torch.int16)


def integer_sum_reference(x: Tensor) -> Tensor:
    """As :func:`aicr_ext.ops.integer.integer_sum`."""
    a, b = x.long().chunk(2, -1)
    return _saturated(a + b).to(torch.int16)


def integer_gate_reference(x: Tensor, shift: int) -> Tensor:
    """As :func:`aicr_ext.ops.integer.integer_gate`."""
    a, b = x.long().chunk(2, -1)
    return _saturated(shifted(a * b, shift)).to(torch.int16)


def integer_asinh_reference(value: Tensor, exponent: Tensor, table: Tensor) -> Tensor:
    """As :func:`aicr_ext.ops.integer.integer_asinh`."""
    magnitude = (value.long().abs() << (12 - exponent.long())).clamp_max((1 << 28) - 4097) + 4096
    octave = torch.frexp(magnitude.double()).exponent.long() - 1  # floor of log2, exact
    rest = magnitude - (torch.ones_like(magnitude) << octave)
    place = rest >> (octave - 6)
    rest = rest - (place << (octave - 6))
    part = torch.where(octave >= 16, rest >> (octave - 16).clamp_min(0), rest << (16 - octave).clamp_min(0))
    index = (octave - 12) * 64 + place
    low, high = table[index].long(), table[index + 1].long()
    curve = low + (((high - low) * part + 512) >> 10)
    return (((curve + 16) >> 5) * value.long().sign()).to(torch.int16)
