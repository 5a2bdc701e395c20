"""Plain-torch definitions of the operators of a coding step (:mod:`aicr_ext.ops.latent`); kernels equal their bits.

All arithmetic in float64 is of numbers that it holds exactly, but for the division by the quantiser step, the
difference to the mean, and sum, quotient and product of the filter, which are correctly rounded everywhere.
"""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = [
    "LOG_EXPONENT",
    "latent_accept_reference",
    "latent_dequantise_reference",
    "latent_quantise_reference",
    "latent_scale_index_reference",
    "scale_level",
]

#: Exponent of log standard deviations and of quantiser steps.
LOG_EXPONENT = 11

_SYMBOL_LIMIT = 32767
_SMALLEST_STEP = 0.5
_LEVELS = 128
_LEVEL_SHIFT = 22
# log .11 with exponent 11, and levels in a unit of the logarithm, 127 / (log 64 - log .11), with exponent 22 - 11.
# Written out: a library's logarithm may differ in the last bit.
_LOG_SCALE_MIN, _LEVELS_PER_UNIT = -4520, 40856


def scale_level(log_scale: Tensor) -> Tensor:
    """The nearest of the 128 scale levels, uint8, of log standard deviations (integers, exponent 11)."""
    steps = (log_scale.int() - _LOG_SCALE_MIN).clamp_min(0) * _LEVELS_PER_UNIT
    level = (steps + (1 << (_LEVEL_SHIFT - 1))) >> _LEVEL_SHIFT
    return level.clamp_max(_LEVELS - 1).to(torch.uint8)


def latent_scale_index_reference(parameters: Tensor, channels: int, second: bool) -> Tensor:
    """As :func:`aicr_ext.ops.latent.latent_scale_index`."""
    log_scale, _ = _scales_and_means(parameters, channels)
    return scale_level(_of_step(log_scale, second)).flatten()


def latent_quantise_reference(
    y: Tensor,
    parameters: Tensor,
    exponent: Tensor,
    step: Tensor | None,
    second: bool,
    zones: Tensor | None = None,
    noise: Tensor | None = None,
    variances: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """As :func:`aicr_ext.ops.latent.latent_quantise`."""
    index = latent_scale_index_reference(parameters, y.shape[-1], second)
    _, mean = _scales_and_means(parameters, y.shape[-1])
    scaled = y.double() if step is None else y.double() / _real_step(step, y.shape[-1])
    residual = _of_step(scaled - _real(mean, exponent), second).flatten()
    if noise is not None:
        variance = variances.double()[index.long()]
        residual = residual * (variance / (variance + _of_step(noise.double(), second).flatten().square()))
    # fmax and fmin return the limit for what is no number.
    symbols = torch.round(residual.fmax(residual.new_tensor(-_SYMBOL_LIMIT)).fmin(residual.new_tensor(_SYMBOL_LIMIT)))
    dead = index == 0
    if zones is not None:
        dead = dead | (residual.abs() < zones.double()[index.long()])
    return torch.where(dead, 0, symbols).to(torch.int16), index


def latent_accept_reference(symbols: Tensor, parameters: Tensor, exponent: Tensor, values: Tensor | None) -> Tensor:
    """As :func:`aicr_ext.ops.latent.latent_accept`."""
    _, mean = _scales_and_means(parameters, len(exponent))
    second = values is not None
    lower = _takes_lower(mean, second)
    coded = symbols.view(*mean.shape[:-1], mean.shape[-1] // 2).int() << _of_step(exponent.expand(mean.shape), second)
    new = coded + _of_step(mean.int(), second)
    old = torch.zeros_like(mean, dtype=torch.int32) if values is None else values
    below, above = old.chunk(2, -1)
    return torch.cat([torch.where(lower, new, below), torch.where(lower, above, new)], -1)


def latent_dequantise_reference(values: Tensor, exponent: Tensor, step: Tensor | None) -> Tensor:
    """As :func:`aicr_ext.ops.latent.latent_dequantise`."""
    y = _real(values, exponent)
    return (y if step is None else y * _real_step(step, values.shape[-1])).float()


def _scales_and_means(parameters: Tensor, channels: int) -> tuple[Tensor, Tensor]:
    log_scale = parameters.shape[-1] - 2 * channels
    return parameters.narrow(-1, log_scale, channels), parameters.narrow(-1, log_scale + channels, channels)


def _real(value: Tensor, exponent: Tensor) -> Tensor:
    return value.double() / (torch.ones_like(exponent, dtype=torch.int64) << exponent).double()


def _real_step(step: Tensor, channels: int) -> Tensor:
    return (step[..., :channels].double() / (1 << LOG_EXPONENT)).clamp_min(_SMALLEST_STEP)


def _takes_lower(x: Tensor, second: bool) -> Tensor:
    """(H, W, 1): where the step takes the lower half of the channels of x (B, H, W, C)."""
    row, column = (torch.arange(size, device=x.device) for size in x.shape[1:3])
    return ((row[:, None] + column) % 2 == int(second))[..., None]


def _of_step(x: Tensor, second: bool) -> Tensor:
    """(B, H, W, C / 2): what the step takes of x (B, H, W, C)."""
    return torch.where(_takes_lower(x, second), *x.chunk(2, -1))
