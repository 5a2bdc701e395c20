"""Snow: flakes from specks to blots, drawn out a little by their fall."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from .base import Degradation, check_number
from .convolve import coordinates, splat
from .draw import chance, log_uniform, uniform, uniform_field
from .particles import coverage, density, painted, turned, veiled

__all__ = ["Snow", "flake_kernels"]

# From far to near: diameter and share of the covered area relative to the largest, width of the soft edge relative to
# the radius (the nearest flakes are out of focus), and how strong the flake looks.
_SIZES = (0.15, 0.22, 0.22, 0.35, 0.35, 0.6, 0.6, 1.0)
_SHARES = (0.26, 0.14, 0.14, 0.12, 0.12, 0.07, 0.07, 0.08)
_SOFTNESS = (0.6, 0.6, 0.6, 0.6, 0.9, 0.8, 1.2, 1.4)
_STRENGTHS = (0.7, 1.0, 1.0, 1.0, 0.8, 0.75, 0.55, 0.4)

# Clumps that make up a flake, how far they lie from its middle and how much they differ, relative to its radius.
_CLUMPS = 3
_CLUMP_OFFSET = 0.45
_CLUMP_RADIUS = (0.5, 0.85)

_MIN_SIZE = 1.2
_MIN_SOFT = 0.4

# Differences between the sorts of flakes in the direction of their fall, in degrees either way.
_ANGLE_SPREAD = 15.0


@dataclass(frozen=True)
class Snow(Degradation):
    """Flakes of eight sorts, each of its own size, shape and softness, and a veil in front of the picture.

    Args:
        amount: share of the picture that flakes cover; .02 is light, .15 a snow storm.
        size: diameter of the largest flakes, in pixels.
        motion: how far the largest flakes fall during the exposure, in pixels.
        angle: of the fall against the vertical in degrees; positive, and they fall to the left.
        opacity: of the strongest flake, 0 to 1.
        light: brightness of flakes and veil, an sRGB sample.
        veil: how much of what is farthest away the veil hides, 0 to .95.
    """

    kind: ClassVar[str] = "snow"

    amount: float = 0.05
    size: float = 8.0
    motion: float = 4.0
    angle: float = 15.0
    opacity: float = 0.9
    light: float = 0.95
    veil: float = 0.0

    def __post_init__(self) -> None:
        check_number("amount", self.amount, 0, 1)
        check_number("size", self.size, 1, 100)
        check_number("motion", self.motion, 0, 100)
        check_number("angle", self.angle, -90, 90)
        check_number("opacity", self.opacity, 0, 1)
        check_number("light", self.light, 0, 1)
        check_number("veil", self.veil, 0, 0.95)

    @classmethod
    def sample(cls, generator: torch.Generator) -> Snow:
        size = log_uniform(generator, 4, 14)
        return cls(
            amount=log_uniform(generator, 0.015, 0.2),
            size=size,
            motion=size * uniform(generator, 0, 1.2),
            angle=uniform(generator, -45, 45),
            opacity=uniform(generator, 0.6, 1.0),
            light=uniform(generator, 0.88, 1.0),
            veil=uniform(generator, 0.1, 0.6) if chance(generator, 0.5) else 0.0,
        )

    def apply(self, image: Tensor, generator: torch.Generator) -> Tensor:
        shape, device = (image.shape[0], *image.shape[2:]), image.device
        if self.veil:
            image = veiled(image, self.veil, self.light, generator)
        sizes = [max(_MIN_SIZE, self.size * size) for size in _SIZES]
        motions = [self.motion * size for size in _SIZES]
        angles = [self.angle + uniform(generator, -_ANGLE_SPREAD, _ANGLE_SPREAD) for _ in _SIZES]
        kernels = flake_kernels(sizes, motions, angles, generator, device)
        densities = [
            density(self.amount, share, math.pi / 4 * size**2 + size * motion)
            for share, size, motion in zip(_SHARES, sizes, motions, strict=True)
        ]
        flakes = splat(shape, kernels, densities, generator, device)
        return painted(image, coverage(flakes, self.opacity), self.light).clamp_(0, 1)


def flake_kernels(
    sizes: list[float], motions: list[float], angles: list[float], generator: torch.Generator, device: torch.device
) -> Tensor:
    """One flake of each sort in the middle of (K, k, k), at most 1: irregular, soft, drawn out along its fall."""
    softs = [max(_MIN_SOFT, softness * size / 2) for size, softness in zip(sizes, _SOFTNESS, strict=True)]
    low, high = _CLUMP_RADIUS
    outer = _CLUMP_OFFSET + high
    extents = [outer * size / 2 + soft + motion / 2 for size, soft, motion in zip(sizes, softs, motions, strict=True)]
    x, y = coordinates(math.ceil(max(extents) + 0.5), device)
    columns = [sizes, motions, angles, softs, _STRENGTHS]
    column = torch.tensor(columns, dtype=torch.float32, device=device)[:, :, None, None, None]
    half, reach, angle, soft, strength = column[0] / 2, column[1] / 2, torch.deg2rad(column[2]), *column[3:]
    # (K, clumps, 1, 1): where each clump is and how large. The shift by a part of a pixel keeps specks off the grid.
    draws = uniform_field((3, len(sizes), _CLUMPS, 1, 1), generator, device)
    turn, out = 2 * math.pi * draws[0], _CLUMP_OFFSET * half * draws[1].sqrt()
    shift = uniform_field((2, len(sizes), 1, 1, 1), generator, device) - 0.5
    x, y = x - shift[0] - out * torch.cos(turn), y - shift[1] - out * torch.sin(turn)
    size = half * (low + (high - low) * draws[2])
    # Distance to the line along which the clump moved.
    along, across = turned(x, y, angle)
    inside = size - torch.hypot(across, (along.abs() - reach).clamp_min(0))
    # Smooth from 0 to 1 across the edge and exactly 0 beyond it, so that the kernel's border shows nowhere.
    edge = (0.5 + 0.5 * inside.amax(1, keepdim=True) / soft).clamp_(0, 1)
    cover = edge * edge * (3 - 2 * edge)
    # The longer a flake is drawn out, the shorter it covers each pixel.
    return (strength * cover * half / (half + reach / 2))[:, 0]
