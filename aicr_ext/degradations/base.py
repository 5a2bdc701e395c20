"""What all degradations have in common: frozen parameters, an explicit generator, checked pictures."""

from __future__ import annotations

import dataclasses
import math
from abc import ABC, abstractmethod
from typing import ClassVar

import torch
from torch import Tensor

__all__ = ["Degradation", "check_generator", "check_image", "check_number"]


class Degradation(ABC):
    """Parent of all kinds: a frozen dataclass of parameters that is called with a picture and a generator.

    The parameters say how strong the damage is, the generator where it falls: which pixel gets which noise,
    where the streaks are. Nothing else is random and the global random state is neither read nor moved.

    **Guarantee.** Equal parameters, picture and generator state give equal bits, on one device with one version
    of PyTorch. Random numbers are drawn on the device of the generator, so a CPU generator gives a picture on a
    GPU the same draws; what is computed from them then agrees up to rounding.
    """

    #: Name of the kind in ``KINDS``, in records and in messages.
    kind: ClassVar[str]

    @classmethod
    @abstractmethod
    def sample(cls, generator: torch.Generator) -> Degradation:
        """Random parameters from the ranges in ``docs/degradations.md``."""

    @abstractmethod
    def apply(self, image: Tensor, generator: torch.Generator) -> Tensor:
        """The degradation alone, without checks: (B, 3, H, W) float32 to the same shape, never in place."""

    @torch.no_grad()
    def __call__(self, image: Tensor, generator: torch.Generator) -> Tensor:
        """Degrade a picture, or a batch of them with the same parameters and a draw for each picture.

        Args:
            image: float32 (3, H, W) or (B, 3, H, W) in [0, 1], any size from 1x1; it stays as it is.
            generator: source of all randomness.

        Returns:
            New tensor of the same shape, dtype and device, in [0, 1] unless the class says otherwise.

        Raises:
            TypeError: ``image`` is no float32 tensor, or ``generator`` no ``torch.Generator``.
            ValueError: another shape, a value outside [0, 1], or one that is not a number.
        """
        check_image(image)
        check_generator(generator)
        return self.apply(image, generator) if image.ndim == 4 else self.apply(image[None], generator)[0]

    @property
    def parameters(self) -> dict[str, object]:
        """The parameters by name, as JSON can hold them; ``type(self)(**parameters)`` is equal to ``self``."""
        values = dataclasses.asdict(self)
        return {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}


def check_image(image: Tensor) -> None:
    """Raise unless ``image`` is what :meth:`Degradation.__call__` accepts."""
    if not isinstance(image, Tensor):
        raise TypeError(f"image: expected a torch tensor, got {type(image).__name__}")
    if image.dtype != torch.float32:
        raise TypeError(f"image: expected float32 in [0, 1], got {image.dtype}")
    if image.ndim not in (3, 4) or image.shape[-3] != 3 or image.numel() == 0:
        raise ValueError(f"image: expected shape (3, H, W) or (B, 3, H, W), none of them 0, got {tuple(image.shape)}")
    low, high = (float(v) for v in torch.aminmax(image.detach()))  # NaN anywhere makes both NaN
    if math.isnan(low):
        raise ValueError("image: expected values in [0, 1], got NaN")
    if low < 0 or high > 1:
        raise ValueError(f"image: expected values in [0, 1], got {low:g} to {high:g}")


def check_generator(generator: torch.Generator) -> None:
    """Raise ``TypeError`` unless it is a ``torch.Generator``; no default, because a default would be global."""
    if not isinstance(generator, torch.Generator):
        raise TypeError(f"generator: expected a torch.Generator, got {type(generator).__name__}")


def check_number(name: str, value: float, low: float, high: float = math.inf) -> None:
    """Raise unless a parameter is a number in [low, high]; NaN is in no range."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"{name}: expected a number, got {type(value).__name__}")
    if not low <= value <= high or math.isinf(value):
        wanted = f"at least {low:g}" if math.isinf(high) else f"{low:g} to {high:g}"
        raise ValueError(f"{name}: expected {wanted}, got {value:g}")
