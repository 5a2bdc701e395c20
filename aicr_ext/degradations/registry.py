"""The kinds by name."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

import torch
from torch import Tensor

from .base import Degradation, check_generator, check_image
from .blur import Defocus, MotionBlur
from .haze import Haze
from .jpeg import Jpeg
from .low_light import LowLight
from .noise import GaussianNoise, RawNoise
from .rain import Rain
from .snow import Snow

__all__ = ["KINDS", "degrade", "kind_named"]

#: Every kind by its name, in the order in which they happen to a picture.
KINDS: Mapping[str, type[Degradation]] = MappingProxyType(
    {cls.kind: cls for cls in (Haze, Rain, Snow, MotionBlur, Defocus, LowLight, RawNoise, GaussianNoise, Jpeg)}
)


def degrade(image: Tensor, kind: str, generator: torch.Generator) -> Tensor:
    """One kind with random parameters: ``KINDS[kind].sample(generator)(image, generator)``, after the checks.

    Raises:
        TypeError, ValueError: as :meth:`Degradation.__call__`; a ``kind`` that is not in :data:`KINDS`.
    """
    cls = kind_named(kind)
    check_image(image)
    check_generator(generator)
    return cls.sample(generator)(image, generator)


def kind_named(kind: str) -> type[Degradation]:
    """The class of a kind, or ``ValueError`` with the names there are."""
    try:
        return KINDS[kind]
    except (KeyError, TypeError):
        raise ValueError(f"kind: expected one of {', '.join(KINDS)}, got {kind!r}") from None
