"""Seeded degradations of pictures, for training and testing a codec that restores.

>>> import torch
>>> from aicr_ext.degradations import Rain, degrade, random_degradation
>>> generator = torch.Generator().manual_seed(0)
>>> clean = torch.rand(3, 64, 96)
>>> Rain(amount=0.2, veil=0.3)(clean, generator).shape
torch.Size([3, 64, 96])
>>> hazy = degrade(clean, "haze", generator)
>>> degraded, record = random_degradation(clean, generator)

Formulas, sources and ranges are in ``docs/degradations.md``.
"""

from .base import Degradation, check_image
from .blur import Defocus, MotionBlur
from .compose import PROBABILITIES, STAGES, Compose, random_degradation, replay
from .depth import random_depth
from .haze import Haze
from .jpeg import Jpeg
from .light import scatter, to_linear, to_srgb
from .low_light import LowLight
from .noise import RAW_NOISE_GAINS, SIGMAS, GaussianNoise, RawNoise
from .rain import Rain
from .registry import KINDS, degrade
from .snow import Snow

__all__ = [
    "KINDS",
    "PROBABILITIES",
    "RAW_NOISE_GAINS",
    "SIGMAS",
    "STAGES",
    "Compose",
    "Defocus",
    "Degradation",
    "GaussianNoise",
    "Haze",
    "Jpeg",
    "LowLight",
    "MotionBlur",
    "Rain",
    "RawNoise",
    "Snow",
    "check_image",
    "degrade",
    "random_degradation",
    "random_depth",
    "replay",
    "scatter",
    "to_linear",
    "to_srgb",
]
