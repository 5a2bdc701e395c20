"""Convolutions with large kernels, through the Fourier transform: their time hardly depends on the kernel's size."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from .draw import uniform_field

__all__ = ["blur", "coordinates", "splat"]


def coordinates(radius: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """x (1, k) to the right and y (k, 1) downwards from the centre of a kernel with k = 2 radius + 1."""
    axis = torch.arange(-radius, radius + 1, dtype=torch.float32, device=device)
    return axis[None, :], axis[:, None]


def blur(image: Tensor, kernel: Tensor) -> Tensor:
    """(B, C, H, W) convolved with one kernel (k, k), k odd; the border is continued with its last pixels."""
    radius = kernel.shape[0] // 2
    height, width = image.shape[-2:]
    rows, columns = _fast(height + 2 * radius), _fast(width + 2 * radius)
    # More border than the kernel needs, up to a length that transforms fast, costs nothing.
    right, bottom = columns - width - radius, rows - height - radius
    padded = F.pad(image, (radius, right, radius, bottom), mode="replicate")
    spectrum = torch.fft.rfft2(padded) * torch.fft.rfft2(kernel, s=(rows, columns))
    result = torch.fft.irfft2(spectrum, s=(rows, columns))
    return result[..., 2 * radius : 2 * radius + height, 2 * radius : 2 * radius + width]


def splat(
    shape: tuple[int, int, int],
    kernels: Tensor,
    densities: Sequence[float],
    generator: torch.Generator,
    device: torch.device,
) -> Tensor:
    """Copies of kernels at random places, added up: (B, 1, H, W).

    Args:
        shape: B, H, W.
        kernels: (K, k, k), k odd, what a particle of each sort looks like.
        densities: K numbers in (0, 1), particles per pixel. Each particle has its own strength, uniform in (0, 1].
    """
    count, height, width = shape
    size = kernels.shape[-1]
    rows, columns = _fast(height + size - 1), _fast(width + size - 1)
    spectrum = None
    for kernel, density in zip(kernels, densities, strict=True):  # one after the other: less memory, same time
        draws = uniform_field((count, 1, rows, columns), generator, device)
        # One draw decides both: a particle is where it falls below the density, how far below is its strength.
        points = draws.mul_(-1 / density).add_(1).clamp_min_(0)
        part = torch.fft.rfft2(points).mul_(torch.fft.rfft2(kernel, s=(rows, columns)))
        spectrum = part if spectrum is None else spectrum.add_(part)
    result = torch.fft.irfft2(spectrum, s=(rows, columns))
    return result[..., size - 1 : size - 1 + height, size - 1 : size - 1 + width].clamp_min(0)


def _fast(length: int) -> int:
    """The next length whose only prime factors are 2, 3 and 5, which the transform likes."""
    while True:
        rest = length
        for prime in (2, 3, 5):
            while rest % prime == 0:
                rest //= prime
        if rest == 1:
            return length
        length += 1
