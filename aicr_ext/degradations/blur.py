"""Blur: a camera that moved, and one that was out of focus."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from .base import Degradation, check_number
from .convolve import blur, coordinates
from .draw import log_uniform, normal_field, uniform
from .light import to_linear, to_srgb

__all__ = ["Defocus", "MotionBlur", "disc_kernel", "shake_kernel"]

_MAX_LENGTH = 201

# Points on the path of a motion, per pixel of its length.
_POINTS_PER_PIXEL = 3


@dataclass(frozen=True)
class MotionBlur(Degradation):
    """Light smeared along the path of the camera during the exposure, in linear light.

    ``length`` of the path in pixels, ``angle`` in degrees counter-clockwise from the horizontal, ``shake`` how much the
    direction wanders on the way: the standard deviation in degrees between the ends, 0 for a straight line.
    """

    kind: ClassVar[str] = "motion_blur"

    length: float = 12.0
    angle: float = 0.0
    shake: float = 40.0

    def __post_init__(self) -> None:
        check_number("length", self.length, 0, _MAX_LENGTH)
        check_number("angle", self.angle, -360, 360)
        check_number("shake", self.shake, 0, 3600)

    @classmethod
    def sample(cls, generator: torch.Generator) -> MotionBlur:
        return cls(
            length=log_uniform(generator, 4, 24),
            angle=uniform(generator, 0, 180),
            shake=uniform(generator, 0, 120),
        )

    def apply(self, image: Tensor, generator: torch.Generator) -> Tensor:
        light = to_linear(image)
        kernels = [shake_kernel(self.length, self.angle, self.shake, generator).to(image.device) for _ in image]
        return to_srgb(torch.cat([blur(one[None], kernel) for one, kernel in zip(light, kernels, strict=True)]))


@dataclass(frozen=True)
class Defocus(Degradation):
    """Every point becomes the disc that a round aperture makes of it; ``radius`` in pixels, in linear light."""

    kind: ClassVar[str] = "defocus"

    radius: float = 3.0

    def __post_init__(self) -> None:
        check_number("radius", self.radius, 0, _MAX_LENGTH / 2)

    @classmethod
    def sample(cls, generator: torch.Generator) -> Defocus:
        return cls(log_uniform(generator, 1, 6))

    def apply(self, image: Tensor, generator: torch.Generator) -> Tensor:
        return to_srgb(blur(to_linear(image), disc_kernel(self.radius).to(image.device)))


def disc_kernel(radius: float) -> Tensor:
    """A disc with an edge one pixel wide, (k, k) with sum 1; radius 0 is a single pixel."""
    x, y = coordinates(math.ceil(radius), torch.device("cpu"))
    kernel = (radius + 0.5 - torch.hypot(x, y)).clamp_(0, 1)
    return kernel / kernel.sum()


def shake_kernel(length: float, angle: float, shake: float, generator: torch.Generator) -> Tensor:
    """The path of a motion drawn with a soft pen, (k, k) with sum 1, its middle in the centre.

    The direction is a random walk: hands drift, they do not jump.
    """
    count = max(2, math.ceil(_POINTS_PER_PIXEL * length))
    turns = normal_field((count,), generator, torch.device("cpu")) * (math.radians(shake) / math.sqrt(count))
    direction = math.radians(angle) + turns.cumsum(0)
    px, py = (length / count) * direction.cos().cumsum(0), (-length / count) * direction.sin().cumsum(0)
    px, py = px - px.mean(), py - py.mean()
    radius = math.ceil(max(float(px.abs().max()), float(py.abs().max()))) + 1
    x, y = coordinates(radius, px.device)
    # Separable pen: rows and columns of each point, multiplied and added up as one matrix product.
    rows, columns = _pen(y - py), _pen(x.T - px)
    kernel = rows @ columns.T
    return kernel / kernel.sum()


def _pen(distance: Tensor) -> Tensor:
    """Linear interpolation between neighbouring pixels: exact for a path that stands still on one."""
    return (1 - distance.abs()).clamp_min_(0)
