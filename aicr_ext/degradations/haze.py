"""Haze: light scattered out of the way, and air that shines itself."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from .base import Degradation, check_number
from .depth import random_depth
from .draw import uniform
from .light import scatter

__all__ = ["Haze"]


@dataclass(frozen=True)
class Haze(Degradation):
    """I = J t + A (1 - t) with t = exp(-beta d), on sRGB samples as in RESIDE.

    The depth d is a smooth random map in ``near`` to 1 (:func:`random_depth`), as a picture comes without its own;
    with a measured one use :func:`scatter`. ``airlight`` is A.
    """

    kind: ClassVar[str] = "haze"

    beta: float = 1.2
    airlight: tuple[float, float, float] = (0.9, 0.9, 0.9)
    near: float = 0.2

    def __post_init__(self) -> None:
        object.__setattr__(self, "airlight", tuple(self.airlight))  # a list, where it comes from JSON
        check_number("beta", self.beta, 0)
        check_number("near", self.near, 0, 1)
        if len(self.airlight) != 3:
            raise ValueError(f"airlight: expected 3 numbers, got {len(self.airlight)}")
        for value in self.airlight:
            check_number("airlight", value, 0, 1)

    @classmethod
    def sample(cls, generator: torch.Generator) -> Haze:
        grey = uniform(generator, 0.7, 0.95)
        red, blue = uniform(generator, -0.04, 0.02), uniform(generator, -0.02, 0.04)
        return cls(
            beta=uniform(generator, 0.5, 2.3),
            airlight=(grey + red, grey, grey + blue),
            near=uniform(generator, 0.0, 0.5),
        )

    def apply(self, image: Tensor, generator: torch.Generator) -> Tensor:
        count, _, height, width = image.shape
        depth = self.near + (1 - self.near) * random_depth((count, height, width), generator, image.device)
        return scatter(image, depth, self.beta, self.airlight).clamp_(0, 1)
