"""What a network is shown: how much of it clean, how much damaged, and by what."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from aicr_ext.degradations import KINDS, PROBABILITIES, Compose, GaussianNoise, degrade
from aicr_ext.degradations.base import check_number
from aicr_ext.degradations.registry import kind_named

__all__ = ["Mixture"]


@dataclass(frozen=True)
class Mixture:
    """A distribution of inputs: clean, with exactly one degradation, or with a random combination.

    Attributes:
        clean: share of inputs that stay clean.
        alone: share of the others that meet exactly one kind, drawn in proportion to ``kinds``. The rest meet a
            combination, each kind with its probability.
        kinds: probability of each kind in a combination.
        unclipped: share of the Gaussian noise standing alone that is left as the sum, outside [0, 1] where it goes
            there, which is how papers test; the rest is clipped and rounded as a file holds it.

    Raises:
        ValueError: shares outside 0 to 1, an unknown kind, or probabilities that :class:`Compose` refuses.
    """

    clean: float = 1.0
    alone: float = 0.5
    kinds: Mapping[str, float] = field(default_factory=lambda: dict(PROBABILITIES))
    unclipped: float = 0.0

    def __post_init__(self) -> None:
        check_number("clean", self.clean, 0, 1)
        check_number("alone", self.alone, 0, 1)
        check_number("unclipped", self.unclipped, 0, 1)
        if not isinstance(self.kinds, Mapping):
            raise TypeError(f"kinds: expected kinds with their probabilities, got {self.kinds!r}")
        for kind in self.kinds:
            kind_named(kind)
        if self.clean < 1 and not sum(self.kinds.values()) > 0:
            raise ValueError(f"kinds: expected at least one of {', '.join(KINDS)} with a probability above 0")
        object.__setattr__(self, "_compose", Compose(self.kinds))

    def __call__(self, picture: Tensor, generator: torch.Generator) -> Tensor:
        """An input made of a clean float32 picture (3, H, W) in [0, 1], which is left as it is."""
        first, second = torch.rand(2, generator=generator).tolist()
        if first < self.clean:
            return picture
        if second < self.alone:
            weights = torch.tensor(list(self.kinds.values()))
            kind = list(self.kinds)[int(torch.multinomial(weights, 1, generator=generator))]
            if kind == GaussianNoise.kind and float(torch.rand((), generator=generator)) < self.unclipped:
                return GaussianNoise.sample(generator, quantise=False)(picture, generator)
            return degrade(picture, kind, generator)
        return self._compose(picture, generator)[0]
