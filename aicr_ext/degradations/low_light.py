"""Pictures taken with too little light."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from .base import Degradation, check_number
from .draw import log_uniform, uniform
from .light import sensor_noise, to_linear, to_srgb

__all__ = ["LowLight"]


@dataclass(frozen=True)
class LowLight(Degradation):
    """Too short an exposure: the light y becomes exposure · y^gamma with the sensor's noise in it.

    ``gamma`` above 1 takes more from the shadows, as the tone curve of a camera does. ``read`` and ``shot`` are those
    of :class:`RawNoise`; they weigh more here because there is less light.
    """

    kind: ClassVar[str] = "low_light"

    exposure: float = 0.1
    gamma: float = 1.1
    read: float = 0.003
    shot: float = 0.001

    def __post_init__(self) -> None:
        check_number("exposure", self.exposure, 0, 1)
        check_number("gamma", self.gamma, 0.1, 10)
        check_number("read", self.read, 0)
        check_number("shot", self.shot, 0)

    @classmethod
    def sample(cls, generator: torch.Generator) -> LowLight:
        return cls(
            exposure=log_uniform(generator, 0.03, 0.3),
            gamma=uniform(generator, 1.0, 1.3),
            read=log_uniform(generator, 5e-4, 5e-3),
            shot=log_uniform(generator, 1e-4, 2e-3),
        )

    def apply(self, image: Tensor, generator: torch.Generator) -> Tensor:
        light = self.exposure * to_linear(image) ** self.gamma
        return to_srgb(sensor_noise(light, self.read, self.shot, generator))
