"""Operators of a coding step: between latents, what the entropy networks say of them, and the symbols of the coder.

A latent has (B, H, W, C) numbers, C even, and is coded in two steps. The first one takes the lower half of the channels
where row + column is even and the upper half elsewhere, the second one the others. What a step has is in the order of
its symbols: picture, row, column, channel.

Fixed-point numbers (:mod:`aicr_ext.ops.integer`) say how:

* ``parameters`` (B, H, W, K) int16, K at least 2 C: the last 2 C channels are log standard deviations with exponent 11
  and means, each with the exponent of its channel;
* ``exponent`` (C,) int32, 0 to 12, of means and values;
* ``step`` (B, H, W, at least C) int16: the first C channels are quantiser steps with exponent 11, at least half.

Decoders repeat the numbers of the encoder to the last bit, so index and values are the same on every device; so are
symbols of the same y.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .. import _native
from .kernels import has_kernel
from .latent_reference import (
    latent_accept_reference,
    latent_dequantise_reference,
    latent_quantise_reference,
    latent_scale_index_reference,
)

__all__ = ["latent_accept", "latent_dequantise", "latent_quantise", "latent_scale_index"]


def latent_scale_index(parameters: Tensor, channels: int, second: bool = False) -> Tensor:
    """The nearest of the 128 scale levels of every symbol of a step: the index of its table.

    Args:
        parameters: (B, H, W, K) int16, K at least 2 ``channels``.
        channels: C, even.
        second: whether of the second step.

    Returns:
        (B · H · W · C / 2,) uint8, 0 to 127.

    Raises:
        RuntimeError: shapes or dtypes that do not fit.
    """
    if not has_kernel(parameters.device.type, coding=True):
        return latent_scale_index_reference(parameters, channels, second)
    return torch.ops.aicr_ext.latent_scale_index(parameters, channels, second)


def latent_quantise(
    y: Tensor,
    parameters: Tensor,
    exponent: Tensor,
    step: Tensor | None = None,
    second: bool = False,
    zones: Tensor | None = None,
    noise: Tensor | None = None,
    variances: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Symbols and table indices of a step: y / step - mean, rounded to nearest (ties to even), within ± 32767.

    Where the index is 0 the scale is too small to be coded, and the symbol is 0; so it is where the magnitude is below
    the zone of the index. What is not a number becomes the lower limit. Where there is noise, the difference is first
    multiplied by variance / (variance + noise^2) with the variance of the index (Wiener's filter).

    Args:
        y: (B, H, W, C) float32.
        parameters, exponent, step: as the module says; no ``step`` is a step of 1.
        second: whether of the second step.
        zones: (128,) float32, half the width of the dead zone of each level; none: what rounds to 0 becomes 0.
        noise: (B, H, W, C) float32, standard deviation of the noise in y / step; none: no noise.
        variances: (128,) float32, of each level; only together with ``noise``.

    Returns:
        symbols, int16, and :func:`latent_scale_index`, each (B · H · W · C / 2,).

    Raises:
        RuntimeError: shapes or dtypes that do not fit.
    """
    if not has_kernel(y.device.type, coding=True):
        return latent_quantise_reference(y, parameters, exponent, step, second, zones, noise, variances)
    return torch.ops.aicr_ext.latent_quantise(y, parameters, exponent, step, second, zones, noise, variances)


def latent_accept(symbols: Tensor, parameters: Tensor, exponent: Tensor, values: Tensor | None = None) -> Tensor:
    """The values that the symbols of a step stand for: symbol · 2**exponent + mean.

    Args:
        symbols: (B · H · W · C / 2,) int16.
        parameters, exponent: as the module says.
        values: (B, H, W, C) int32, the values of the first step; given, the symbols are those of the second.

    Returns:
        (B, H, W, C) int32 with the exponents; what no step has given yet is 0.

    Raises:
        RuntimeError: shapes or dtypes that do not fit.
    """
    if not has_kernel(parameters.device.type, coding=True):
        return latent_accept_reference(symbols, parameters, exponent, values)
    return torch.ops.aicr_ext.latent_accept(symbols, parameters, exponent, values)


def latent_dequantise(values: Tensor, exponent: Tensor, step: Tensor | None = None) -> Tensor:
    """The decoded latent: value · 2**-exponent · step, rounded once, to float32.

    Args:
        values: (B, H, W, C) int32, of both steps.
        exponent, step: as the module says; no ``step`` is a step of 1.

    Returns:
        (B, H, W, C) float32.

    Raises:
        RuntimeError: shapes or dtypes that do not fit.
    """
    if not has_kernel(values.device.type, coding=True):
        return latent_dequantise_reference(values, exponent, step)
    return torch.ops.aicr_ext.latent_dequantise(values, exponent, step)


def _half(parameters: Tensor, channels: int) -> int:
    batch, height, width, _ = parameters.shape
    return batch * height * width * (channels // 2)


def _fake_scale_index(parameters, channels, second):
    return parameters.new_empty(_half(parameters, channels), dtype=torch.uint8)


def _fake_quantise(y, parameters, exponent, step, second, zones, noise, variances):
    size = _half(parameters, y.shape[-1])
    return y.new_empty(size, dtype=torch.int16), y.new_empty(size, dtype=torch.uint8)


def _fake_accept(symbols, parameters, exponent, values):
    return parameters.new_empty((*parameters.shape[:-1], exponent.shape[0]), dtype=torch.int32)


def _fake_dequantise(values, exponent, step):
    return values.new_empty(values.shape, dtype=torch.float32)


if _native.HAS_OPS:
    torch.library.register_fake("aicr_ext::latent_scale_index", _fake_scale_index)
    torch.library.register_fake("aicr_ext::latent_quantise", _fake_quantise)
    torch.library.register_fake("aicr_ext::latent_accept", _fake_accept)
    torch.library.register_fake("aicr_ext::latent_dequantise", _fake_dequantise)
