"""Random numbers from an explicit generator: scalars for parameters, fields for pictures."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TypeVar

import torch
from torch import Tensor

__all__ = ["chance", "choice", "log_uniform", "normal_field", "uniform", "uniform_field"]

T = TypeVar("T")


def uniform(generator: torch.Generator, low: float, high: float) -> float:
    """One number, uniform in [low, high)."""
    return low + (high - low) * float(torch.rand((), generator=generator, device=generator.device, dtype=torch.float32))


def log_uniform(generator: torch.Generator, low: float, high: float) -> float:
    """One number in [low, high) whose logarithm is uniform."""
    return math.exp(uniform(generator, math.log(low), math.log(high)))


def chance(generator: torch.Generator, probability: float) -> bool:
    """True with that probability."""
    return uniform(generator, 0, 1) < probability


def choice(generator: torch.Generator, options: Sequence[T]) -> T:
    """One of the options, all equally likely."""
    return options[int(torch.randint(len(options), (), generator=generator, device=generator.device))]


def normal_field(shape: Sequence[int], generator: torch.Generator, device: torch.device) -> Tensor:
    """Standard normal numbers, drawn where the generator lives and moved to where the picture is."""
    return torch.randn(*shape, generator=generator, device=generator.device, dtype=torch.float32).to(device)


def uniform_field(shape: Sequence[int], generator: torch.Generator, device: torch.device) -> Tensor:
    """The same with numbers uniform in [0, 1)."""
    return torch.rand(*shape, generator=generator, device=generator.device, dtype=torch.float32).to(device)
