"""Rain: drops that the exposure draws out to streaks, and the mist of those too far away to be seen."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from .base import Degradation, check_number
from .convolve import coordinates, splat
from .draw import chance, uniform
from .particles import coverage, density, painted, turned, veiled

__all__ = ["Rain", "streak_kernels"]

# Layers of drops from far to near: length and width relative to the sharp nearest ones, share of the covered area, and
# how strong they look. The last are too near to be in focus: wide and faint.
_LENGTHS = (0.35, 0.5, 0.75, 1.0, 1.3)
_WIDTHS = (0.5, 0.6, 0.8, 1.0, 2.2)
_SHARES = (0.35, 0.25, 0.2, 0.14, 0.06)
_STRENGTHS = (0.5, 0.65, 0.85, 1.0, 0.35)

# Differences between the layers, either way: degrees, and a part of the length.
_ANGLE_SPREAD = 3.0
_LENGTH_SPREAD = 0.3

# Narrower streaks cannot be drawn on the pixel grid; they become fainter instead.
_MIN_WIDTH = 1.1


@dataclass(frozen=True)
class Rain(Degradation):
    """Five layers of streaks, seen against the picture, and a veil in front of both.

    Args:
        amount: share of the picture that streaks cover; .05 is light, .4 heavy.
        length, width: of the nearest streaks in focus, in pixels.
        angle: of the streaks against the vertical in degrees; positive, and they fall to the left.
        opacity: of the strongest streak, 0 to 1.
        light: brightness of streaks and veil, an sRGB sample.
        veil: how much of what is farthest away the veil hides, 0 to .95.
        additive: the streaks' light is added to the picture instead of covering it, as in many synthetic sets.
    """

    kind: ClassVar[str] = "rain"

    amount: float = 0.15
    length: float = 30.0
    width: float = 1.5
    angle: float = 8.0
    opacity: float = 0.6
    light: float = 0.9
    veil: float = 0.0
    additive: bool = False

    def __post_init__(self) -> None:
        check_number("amount", self.amount, 0, 1)
        check_number("length", self.length, 1, 200)
        check_number("width", self.width, 0.1, 20)
        check_number("angle", self.angle, -90, 90)
        check_number("opacity", self.opacity, 0, 1)
        check_number("light", self.light, 0, 1)
        check_number("veil", self.veil, 0, 0.95)

    @classmethod
    def sample(cls, generator: torch.Generator) -> Rain:
        """Light or heavy rain with equal chances; heavy rain often with a veil."""
        heavy = chance(generator, 0.5)
        return cls(
            amount=uniform(generator, 0.2, 0.7) if heavy else uniform(generator, 0.03, 0.2),
            length=uniform(generator, 25, 90) if heavy else uniform(generator, 12, 45),
            width=uniform(generator, 1.2, 3.0) if heavy else uniform(generator, 0.9, 2.0),
            angle=uniform(generator, -35, 35),
            opacity=uniform(generator, 0.4, 0.95) if heavy else uniform(generator, 0.3, 0.8),
            light=uniform(generator, 0.8, 1.0),
            veil=uniform(generator, 0.1, 0.7) if chance(generator, 0.5 if heavy else 0.2) else 0.0,
            additive=chance(generator, 0.3),
        )

    def apply(self, image: Tensor, generator: torch.Generator) -> Tensor:
        shape, device = (image.shape[0], *image.shape[2:]), image.device
        angles = [self.angle + uniform(generator, -_ANGLE_SPREAD, _ANGLE_SPREAD) for _ in _LENGTHS]
        stretch = [1 + uniform(generator, -_LENGTH_SPREAD, _LENGTH_SPREAD) for _ in _LENGTHS]
        lengths = [max(1.0, self.length * part * factor) for part, factor in zip(_LENGTHS, stretch, strict=True)]
        widths = [self.width * part for part in _WIDTHS]
        kernels = streak_kernels(lengths, widths, angles, device)
        kernels = kernels * torch.tensor(_STRENGTHS, dtype=torch.float32, device=device)[:, None, None]
        densities = [
            density(self.amount, share, length * max(width, _MIN_WIDTH))
            for share, length, width in zip(_SHARES, lengths, widths, strict=True)
        ]
        streaks = splat(shape, kernels, densities, generator, device)
        cover = coverage(streaks, self.opacity)
        if self.additive:
            rained = (image + self.light * cover).clamp_(0, 1)
        else:
            rained = painted(image, cover, self.light)
        if self.veil:
            rained = veiled(rained, self.veil, self.light, generator)
        return rained.clamp_(0, 1)


def streak_kernels(lengths: list[float], widths: list[float], angles: list[float], device: torch.device) -> Tensor:
    """One streak each in the middle of (K, k, k), at most 1: a line with soft sides and pointed ends.

    ``widths`` are those at half strength. Below what the pixel grid can hold, the streak becomes fainter.
    """
    radius = max(math.ceil(length / 2 + 2 * width) for length, width in zip(lengths, widths, strict=True))
    x, y = coordinates(radius, device)
    column = torch.tensor([lengths, widths, angles], dtype=torch.float32, device=device)[:, :, None, None]
    length, width, angle = column[0], column[1], torch.deg2rad(column[2])
    along, across = turned(x, y, angle)
    drawn = width.clamp_min(_MIN_WIDTH)
    profile = torch.exp(-4 * math.log(2) * (across / drawn) ** 2)
    # At least as long as wide, so that a streak of length 1 is a dot and not an empty kernel.
    taper = (1 - (2 * along / torch.maximum(length, drawn + 1)) ** 2).clamp_min(0).sqrt()
    return profile * taper * (width / drawn)
