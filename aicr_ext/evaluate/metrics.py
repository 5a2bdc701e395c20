"""How far a decoded picture is from the one it should be."""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from .extras import load

__all__ = ["MS_SSIM_SIDE", "decibel", "lpips", "ms_ssim", "psnr"]

#: Smallest side in pixels that the five scales of MS-SSIM need.
MS_SSIM_SIDE = 161


def psnr(decoded: np.ndarray, target: np.ndarray, peak: float = 255) -> float:
    """Peak signal-to-noise ratio in dB of two pictures of one shape; infinite if they are equal.

    uint8 pictures are 8-bit rounded and clamped by their type. Floating-point ones are taken as they are, with their
    ``peak``.
    """
    mse = float(np.mean((_float64(decoded) - _float64(target)) ** 2))
    return 10 * math.log10(peak**2 / mse) if mse else math.inf


def ms_ssim(decoded: np.ndarray, target: np.ndarray, peak: float = 255) -> float | None:
    """Multi-scale structural similarity of two RGB pictures (H, W, 3), at most 1.

    None for pictures with a side below :data:`MS_SSIM_SIDE`, on which it is not defined.
    """
    if min(target.shape[:2]) < MS_SSIM_SIDE:
        return None
    return float(load("pytorch_msssim").ms_ssim(_batch(decoded), _batch(target), data_range=peak))


def decibel(similarity: float | None) -> float | None:
    """-10 log10(1 - similarity), which spreads the values near 1; None stays None."""
    if similarity is None:
        return None
    return -10 * math.log10(1 - similarity) if similarity < 1 else math.inf


@torch.no_grad()
def lpips(decoded: np.ndarray, target: np.ndarray) -> float:
    """Learned perceptual distance (LPIPS, AlexNet) of two uint8 pictures; 0 is equal, less is better."""
    a, b = (_batch(picture) / 127.5 - 1 for picture in (decoded, target))
    return float(_alexnet()(a, b))


@lru_cache(maxsize=1)
def _alexnet() -> torch.nn.Module:
    return load("lpips", "perceptual").LPIPS(net="alex", verbose=False).eval()


def _batch(picture: np.ndarray) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(picture)).permute(2, 0, 1)[None].float()


def _float64(picture: np.ndarray) -> np.ndarray:
    return np.asarray(picture, np.float64)
