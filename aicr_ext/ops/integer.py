"""Integer operators: the same bits on every device, with any instruction set and any number of threads.

A tensor of *fixed-point* numbers is int16 with an exponent e known beside it: v stands for v · 2**-e. Values saturate
at ± 32767. A product of two is summed in int32, which must not overflow; who makes the weights proves that
(:mod:`aicr_ext.codec.fixed_point`). *Shifted* by s means multiplied by 2**-s and rounded to nearest, halves up.

The entropy networks are made of them, because a decoder has to repeat the numbers of the encoder to the last bit.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula

from .. import _native
from .integer_reference import (
    integer_asinh_reference,
    integer_depthwise_reference,
    integer_gate_reference,
    integer_linear_reference,
    integer_sum_reference,
)
from .kernels import has_kernel

__all__ = ["integer_asinh", "integer_depthwise", "integer_gate", "integer_linear", "integer_sum"]


def integer_linear(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    shift: Tensor,
    slope: Tensor,
    residual: Tensor | None = None,
    residual_shift: Tensor | None = None,
) -> Tensor:
    """Matrix product, requantisation, leaky ReLU, and the sum with a residual.

    Of every pixel, with all sums saturating: r = (bias + weight · x) shifted by ``shift``; where r < 0,
    r = (r · slope) shifted by 15; plus the residual shifted by ``residual_shift``.

    Args:
        x: (..., K) int16, K even.
        weight: (K / 2, O, 2) int16: inputs 2k and 2k + 1 of every output side by side, as processors multiply them.
        bias, shift, slope: (O,) int32; shift 1 to 31, slope 0 to 32768 (no change below zero).
        residual: (..., O) int16.
        residual_shift: (O,) int32, -15 to 15.

    Returns:
        (..., O) int16.

    Raises:
        RuntimeError: shapes or dtypes that do not fit.
    """
    if not has_kernel(x.device.type, coding=True):
        return integer_linear_reference(x, weight, bias, shift, slope, residual, residual_shift)
    return torch.ops.aicr_ext.integer_linear(x, weight, bias, shift, slope, residual, residual_shift)


def integer_depthwise(x: Tensor, weight: Tensor, bias: Tensor, shift: Tensor) -> Tensor:
    """Depthwise 3x3 convolution with zeros around the picture, requantised and saturated.

    Args:
        x: (H, W, C) int16.
        weight: (9, C) int16, taps by row and column.
        bias, shift: (C,) int32; shift 1 to 31.

    Returns:
        (H, W, C) int16.

    Raises:
        RuntimeError: shapes or dtypes that do not fit.
    """
    if not has_kernel(x.device.type, coding=True):
        return integer_depthwise_reference(x, weight, bias, shift)
    return torch.ops.aicr_ext.integer_depthwise(x, weight, bias, shift)


def integer_sum(x: Tensor) -> Tensor:
    """The saturated sum of both halves: x[..., :C] + x[..., C:] of (..., 2C) int16.

    Raises:
        RuntimeError: an odd number of channels, or another dtype.
    """
    if not has_kernel(x.device.type, coding=True):
        return integer_sum_reference(x)
    return torch.ops.aicr_ext.integer_sum(x)


def integer_gate(x: Tensor, shift: int) -> Tensor:
    """The product of both halves of (..., 2C) int16, shifted by ``shift`` (1 to 30) and saturated.

    Raises:
        RuntimeError: an odd number of channels, another dtype, or a shift out of range.
    """
    if not has_kernel(x.device.type, coding=True):
        return integer_gate_reference(x, shift)
    return torch.ops.aicr_ext.integer_gate(x, shift)


def integer_asinh(value: Tensor, exponent: Tensor, table: Tensor) -> Tensor:
    """asinh of fixed-point numbers, by straight lines between 64 points per octave of |x| + 1; the exponent is 11.

    Args:
        value: (..., C) int32, of magnitude below 2**(16 + exponent).
        exponent: (C,) int32 of every channel, 0 to 12.
        table: (1025,) int32, :func:`aicr_ext.codec.fixed_point.asinh_table`: at point p of octave o, asinh of
            2**o · (1 + p / 64) - 1 with exponent 16.

    Returns:
        (..., C) int16 with exponent 11; error below 3e-4.

    Raises:
        RuntimeError: shapes or dtypes that do not fit.
    """
    if not has_kernel(value.device.type, coding=True):
        return integer_asinh_reference(value, exponent, table)
    return torch.ops.aicr_ext.integer_asinh(value, exponent, table)


def _fake_linear(x, weight, bias, shift, slope, residual, residual_shift):
    return x.new_empty((*x.shape[:-1], weight.shape[1]))


def _fake_halves(x, *shift):
    return x.new_empty((*x.shape[:-1], x.shape[-1] // 2))


def _linear_operations(x, weight, *_, **__) -> int:
    """Multiplications with an addition count twice, as in floating point."""
    return 2 * math.prod(x) * weight[1]


def _depthwise_operations(x, *_, **__) -> int:
    return 18 * math.prod(x)


if _native.HAS_OPS:
    register_flop_formula(torch.ops.aicr_ext.integer_linear)(_linear_operations)
    register_flop_formula(torch.ops.aicr_ext.integer_depthwise)(_depthwise_operations)
    torch.library.register_fake("aicr_ext::integer_linear", _fake_linear)
    torch.library.register_fake("aicr_ext::integer_depthwise", lambda x, weight, bias, shift: x.new_empty(x.shape))
    torch.library.register_fake("aicr_ext::integer_sum", _fake_halves)
    torch.library.register_fake("aicr_ext::integer_gate", _fake_halves)
    torch.library.register_fake(
        "aicr_ext::integer_asinh", lambda value, exponent, table: value.new_empty(value.shape, dtype=torch.int16)
    )
