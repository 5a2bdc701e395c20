"""Arguments of the operators of a coding step."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from integer_cases import draw, extreme
from seeds import SEED
from torch import Tensor

#: (B, H, W, C) and the channels of the parameters: vectors and not, one pixel, one row, nothing.
SHAPES = [
    ((2, 3, 5, 16), 32),
    ((1, 4, 3, 24), 72),
    ((1, 1, 1, 2), 4),
    ((2, 5, 1, 6), 18),
    ((1, 1, 7, 192), 576),
    ((3, 2, 2, 8), 18),
    ((0, 3, 4, 8), 16),
    ((1, 0, 4, 8), 16),
    ((1, 2, 3, 0), 0),
]

#: Of the levels: from nothing, which is plain rounding, to several steps.
ZONES = torch.linspace(0, 4, 128)
VARIANCES = torch.logspace(-2, 4, 128)


def drawn(shape: tuple[int, ...], width: int, seed: int = 0) -> dict[str, Tensor]:
    """All that the operators take, for latents of this shape and parameters of so many channels."""
    generator = torch.Generator().manual_seed(SEED + seed)
    channels = shape[-1]
    exponent = draw(generator, (channels,), 0, 12, torch.int32)
    parameters = extreme(generator, (*shape[:-1], width))
    if channels:
        usual = draw(generator, (*shape[:-1], channels), -5000, 9000, torch.int16)  # all levels, and below them
        here = torch.rand(shape, generator=generator) < 0.8
        parameters[..., -2 * channels : -channels] = torch.where(
            here, usual, parameters[..., -2 * channels : -channels]
        )
    step = draw(generator, (*shape[:-1], max(width, channels)), -2000, 9000, torch.int16)
    mean = parameters[..., width - channels :].double() / 2.0**exponent
    y = mean + torch.randn(shape, generator=generator) * torch.exp2(18 * torch.rand(shape, generator=generator) - 3)
    half = mean + draw(generator, shape, -20, 20, torch.int64) + 0.5  # where ties go to even
    y = torch.where(torch.rand(shape, generator=generator) < 0.3, half, y)
    corners = torch.tensor([float("nan"), float("inf"), -float("inf"), 0.0, -32767.5, 1e30], dtype=torch.float64)
    corners = corners[torch.randint(0, len(corners), shape, generator=generator)]
    y = torch.where(torch.rand(shape, generator=generator) < 0.05, corners, y).float()
    noise = torch.exp2(24 * torch.rand(shape, generator=generator) - 12)
    noise = torch.where(torch.rand(shape, generator=generator) < 0.05, corners.float(), noise)
    return {
        "y": y,
        "parameters": parameters,
        "exponent": exponent,
        "step": step,
        "noise": noise,
        "symbols": extreme(generator, (y.numel() // 2,)),
        "values": draw(generator, shape, -(2**27), 2**27, torch.int32),
    }


def calls_of(given: dict[str, Tensor]) -> Iterator[tuple[str, tuple]]:
    """Every operator, in both steps, with and without quantiser steps."""
    y, parameters, exponent, step, noise, symbols, values = given.values()
    for second in (False, True):
        yield "latent_scale_index", (parameters, len(exponent), second)
        for steps in (None, step):
            yield "latent_quantise", (y, parameters, exponent, steps, second, None, None, None)
            yield "latent_quantise", (y, parameters, exponent, steps, second, ZONES, noise, VARIANCES)
        yield "latent_quantise", (y, parameters, exponent, step, second, ZONES, None, None)
        yield "latent_accept", (symbols, parameters, exponent, values if second else None)
    for steps in (None, step):
        yield "latent_dequantise", (values, exponent, steps)


def cases() -> Iterator[tuple[str, tuple]]:
    """Operators by name, with arguments."""
    for number, (shape, width) in enumerate(SHAPES):
        yield from calls_of(drawn(shape, width, number))


def moved(given: dict[str, Tensor], name: str, places: int) -> dict[str, Tensor]:
    """The same numbers, those called ``name`` so many places further in memory."""
    tensor = given[name]
    flat = torch.cat([tensor.flatten()[:1].expand(places), tensor.flatten()])
    return given | {name: flat[places:].view(tensor.shape)}
