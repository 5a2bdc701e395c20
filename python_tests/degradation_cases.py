"""Pictures and generators for the tests of degradations."""

from __future__ import annotations

import numpy as np
import torch
from pictures import smooth
from torch import Tensor

CPU = torch.device("cpu")


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def picture(height: int = 24, width: int = 32) -> Tensor:
    """Smooth and coloured, as photographs are."""
    return torch.from_numpy(np.array(smooth(width, height))).permute(2, 0, 1).float().div(255)


def flat(value: float, side: int = 160) -> Tensor:
    return torch.full((3, side, side), value)
