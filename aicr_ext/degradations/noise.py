"""Noise: of equal strength everywhere, and as a sensor makes it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from .base import Degradation, check_number
from .draw import choice, log_uniform, normal_field
from .light import sensor_noise, to_linear, to_srgb

__all__ = ["RAW_NOISE_GAINS", "SIGMAS", "GaussianNoise", "RawNoise"]

#: Standard deviations of the usual training and test sets.
SIGMAS = (15 / 255, 25 / 255, 50 / 255)

#: Sensor gain to (read, shot) of the four test levels of "Optimizing Image Compression via Joint Learning with
#: Denoising" (ECCV 2022).
RAW_NOISE_GAINS = {
    1: (0.0068354, 0.05200081**2),
    2: (0.01572141, 0.07886314**2),
    4: (0.03615925, 0.11960187**2),
    8: (0.08316627, 0.18138522**2),
}


@dataclass(frozen=True)
class GaussianNoise(Degradation):
    """Normal noise of one standard deviation, independent in every pixel and channel, added to the sRGB samples.

    ``quantise=True`` is what a file holds: clipped to [0, 1] and rounded to 8 bits. ``quantise=False`` is the
    convention of papers, AICR's among them: the sum as it is, **outside [0, 1] where the noise takes it**.
    """

    kind: ClassVar[str] = "gaussian_noise"

    sigma: float = SIGMAS[1]
    quantise: bool = True

    def __post_init__(self) -> None:
        check_number("sigma", self.sigma, 0)

    @classmethod
    def sample(cls, generator: torch.Generator, *, quantise: bool = True) -> GaussianNoise:
        """One of :data:`SIGMAS`."""
        return cls(choice(generator, SIGMAS), quantise)

    def apply(self, image: Tensor, generator: torch.Generator) -> Tensor:
        noisy = image + self.sigma * normal_field(image.shape, generator, image.device)
        return noisy.clamp_(0, 1).mul_(255).round_().div_(255) if self.quantise else noisy


@dataclass(frozen=True)
class RawNoise(Degradation):
    """Sensor noise: the sRGB gamma undone, N(0, read² + shot · y) added to the light y, gamma, clipped.

    ``read`` is a standard deviation, ``shot`` a variance per unit of light.
    """

    kind: ClassVar[str] = "raw_noise"

    read: float = RAW_NOISE_GAINS[1][0]
    shot: float = RAW_NOISE_GAINS[1][1]

    def __post_init__(self) -> None:
        check_number("read", self.read, 0)
        check_number("shot", self.shot, 0)

    @classmethod
    def for_gain(cls, gain: int) -> RawNoise:
        """One of the four test levels, :data:`RAW_NOISE_GAINS`."""
        if gain not in RAW_NOISE_GAINS:
            raise ValueError(f"gain: expected one of {', '.join(map(str, RAW_NOISE_GAINS))}, got {gain!r}")
        return cls(*RAW_NOISE_GAINS[gain])

    @classmethod
    def sample(cls, generator: torch.Generator) -> RawNoise:
        """The training ranges of the paper, both log-uniform and independent."""
        return cls(read=log_uniform(generator, 1e-3, 10**-1.5), shot=log_uniform(generator, 1e-4, 1e-2))

    def apply(self, image: Tensor, generator: torch.Generator) -> Tensor:
        return to_srgb(sensor_noise(to_linear(image), self.read, self.shot, generator))
