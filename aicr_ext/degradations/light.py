"""Between sRGB samples and linear light (IEC 61966-2-1), and what happens to light on its way to the samples."""

from __future__ import annotations

import torch
from torch import Tensor

from .draw import normal_field

__all__ = ["scatter", "sensor_noise", "to_linear", "to_srgb"]


def to_linear(srgb: Tensor) -> Tensor:
    """sRGB samples to linear light, both in [0, 1]."""
    return torch.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055).clamp_min(0) ** 2.4)


def to_srgb(linear: Tensor) -> Tensor:
    """Linear light to sRGB samples in [0, 1]; light beyond that range is clipped first, as a camera does."""
    linear = linear.clamp(0, 1)
    return torch.where(linear <= 0.0031308, linear * 12.92, 1.055 * linear ** (1 / 2.4) - 0.055).clamp(0, 1)


def sensor_noise(light: Tensor, read: float, shot: float, generator: torch.Generator) -> Tensor:
    """Linear light with noise of variance ``read**2 + shot * light``, not clipped.

    The first term is the electronics', the second the Gaussian limit of counting photons.
    """
    deviation = (read**2 + shot * light.clamp_min(0)).sqrt_()
    return light + deviation * normal_field(light.shape, generator, light.device)


def scatter(image: Tensor, depth: Tensor, beta: float, airlight: tuple[float, float, float]) -> Tensor:
    """Atmospheric scattering, I = J t + A (1 - t) with t = exp(-beta d) (Koschmieder's law).

    Args:
        image: J, (B, 3, H, W).
        depth: d, (B, 1, H, W) or what broadcasts to it, in any unit that ``beta`` is the inverse of.
        beta: scattering per unit of depth; 0 is clear air.
        airlight: A, the colour of infinitely distant air.
    """
    transmission = torch.exp(-beta * depth)
    air = torch.tensor(airlight, dtype=image.dtype, device=image.device)[:, None, None]
    return torch.lerp(air, image, transmission)
