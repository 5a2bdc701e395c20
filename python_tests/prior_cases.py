"""What the tests of the integer entropy networks run them on."""

from __future__ import annotations

import numpy as np
import torch
from pictures import smooth
from torch import Tensor

from aicr_ext.codec.priors import IntegerPriors
from aicr_ext.model.aicr import AICR


def latents(model: AICR, height: int = 9, width: int = 14) -> tuple[Tensor, Tensor]:
    """Integers z (1, Z, h/4, w/4) of a picture, and first-step values (1, h, w, N) in units of the means."""
    picture = torch.from_numpy(np.array(smooth(16 * width, 16 * height))).permute(2, 0, 1)[None].float() / 255
    with torch.no_grad():
        y, _ = model.y_and_detail(model.analysis(picture, torch.tensor([32])))
        z = torch.round(model.hyper_analysis(y))
    return z, torch.round(y.permute(0, 2, 3, 1) * torch.exp2(model.mean_exponents.float())).int()


def all_steps(priors: IntegerPriors, z: Tensor, values: Tensor) -> list[Tensor]:
    """Parameters of the first step, of the second, and of the detail, if there is any."""
    first = priors.first(z, *values.shape[1:3])
    second = priors.second(values, first)
    return [first, second, *([priors.detail(first, second)] if priors.config.detail else ())]
