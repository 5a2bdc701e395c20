"""JPEG, by the encoder that users have."""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from .base import Degradation, check_number
from .draw import chance, uniform

__all__ = ["Jpeg"]

_SUBSAMPLINGS = ("4:2:0", "4:2:2", "4:4:4")


@dataclass(frozen=True)
class Jpeg(Degradation):
    """The picture rounded to 8 bits, encoded by Pillow and decoded again. The generator is not used."""

    kind: ClassVar[str] = "jpeg"

    quality: int = 50
    subsampling: str = "4:2:0"

    def __post_init__(self) -> None:
        check_number("quality", self.quality, 1, 100)
        if not isinstance(self.quality, int):
            raise TypeError(f"quality: expected a whole number, got {self.quality!r}")
        if self.subsampling not in _SUBSAMPLINGS:
            raise ValueError(f"subsampling: expected one of {', '.join(_SUBSAMPLINGS)}, got {self.subsampling!r}")

    @classmethod
    def sample(cls, generator: torch.Generator) -> Jpeg:
        return cls(quality=int(uniform(generator, 15, 91)), subsampling="4:2:0" if chance(generator, 0.75) else "4:4:4")

    def apply(self, image: Tensor, generator: torch.Generator) -> Tensor:
        samples = image.clamp(0, 1).mul_(255).round_().to(torch.uint8).permute(0, 2, 3, 1).contiguous().cpu().numpy()
        decoded = np.stack([self._recompress(one) for one in samples])
        return torch.from_numpy(decoded).to(image.device).permute(0, 3, 1, 2).contiguous().float().div_(255)

    def _recompress(self, samples: np.ndarray) -> np.ndarray:
        file = io.BytesIO()
        Image.fromarray(samples).save(file, "JPEG", quality=self.quality, subsampling=self.subsampling)
        return np.asarray(Image.open(file))
