"""The entropy model: hyperprior and dual spatial prior, and the likelihoods that training needs.

Only convolutions, leaky ReLUs, products and sums are used between the decoded hyper latent and the scale level
and mean of a latent symbol, so that this path runs in integers (:mod:`aicr_ext.codec.priors`) without being trained
anew. The buffers ``exponents`` say with how many binary places: the tensors inside a block, then its result.
"""

from __future__ import annotations

import itertools
import math

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from aicr_ext.model.config import ModelConfig
from aicr_ext.nn import PointwiseConv2d, SteadyConv2d

__all__ = [
    "DEFAULT_EXPONENT",
    "LEAST_CODED",
    "LOG_SCALE_MAX",
    "LOG_SCALE_MIN",
    "PRICE",
    "SCALE_LEVELS",
    "DetailPrior",
    "FactorizedPrior",
    "HyperDecoder",
    "HyperEncoder",
    "PriorFusion",
    "SpatialPrior",
    "dead_zone",
    "exponents",
    "filtered",
    "gaussian_bits",
    "quantised",
]

#: Standard deviations are coded as one of this many log-spaced levels.
SCALE_LEVELS = 128
LOG_SCALE_MIN = math.log(0.11)
LOG_SCALE_MAX = math.log(64.0)
#: What has a smaller one is not coded: it is nearest to the smallest level.
LEAST_CODED = LOG_SCALE_MIN + 0.5 * (LOG_SCALE_MAX - LOG_SCALE_MIN) / (SCALE_LEVELS - 1)


def gaussian_bits(residual: Tensor, log_scale: Tensor) -> Tensor:
    """Bits of a unit-wide interval around ``residual`` under a zero-mean Gaussian; elementwise, float32."""
    inverse = torch.exp(-log_scale.float().clamp(LOG_SCALE_MIN, LOG_SCALE_MAX)) * math.sqrt(0.5)
    magnitude = residual.float().abs()
    mass = 0.5 * (torch.erfc((magnitude - 0.5) * inverse) - torch.erfc((magnitude + 0.5) * inverse))
    return -torch.log2(mass.clamp_min(1e-6))


def filtered(residual: Tensor, log_scale: Tensor, noise: Tensor | None) -> Tensor:
    """Wiener's filter, elementwise: a residual with noise of a standard deviation ``noise`` in it, without the noise.

    What a residual is expected to be beyond noise has the scale that it is coded with; noise None is no noise.
    """
    if noise is None:
        return residual
    variance = torch.exp(2 * log_scale.float().clamp(LOG_SCALE_MIN, LOG_SCALE_MAX))
    return residual * (variance / (variance + noise * noise))


#: Bits that the square of a quantiser step is worth to the encoder, against which it weighs those of a symbol. A step
#: that is optimal at high rate makes it 6 / ln 2 for errors by themselves; more is better, perhaps because those of a
#: dead zone all shrink the latent and add up in the picture. Chosen by ``benchmarks.dead_zone``.
PRICE = 40.0


def dead_zone(log_scale: Tensor) -> Tensor:
    """What is nearer to 0 is better coded as 0 than as 1: half the width of a quantiser's dead zone, elementwise.

    From 1/2 where the scale is large up to 3/4, in quantiser steps.
    """
    zeros = torch.zeros_like(log_scale)
    return 0.5 + (gaussian_bits(zeros + 1, log_scale) - gaussian_bits(zeros, log_scale)) / (2 * PRICE)


def quantised(residual: Tensor, log_scale: Tensor) -> Tensor:
    """Whole numbers that are coded for a residual, elementwise: the nearest, and 0 within the dead zone.

    Where the scale is nearest to the smallest one nothing is coded.
    """
    nothing = (residual.abs() < dead_zone(log_scale)) | (log_scale < LEAST_CODED)
    return torch.where(nothing, 0.0, torch.round(residual))


#: Binary places of a tensor where nobody has measured its range yet.
DEFAULT_EXPONENT = 9


def exponents(count: int, value: int = DEFAULT_EXPONENT) -> Tensor:
    """Binary places of so many tensors, not measured yet."""
    return torch.full((count,), value, dtype=torch.int16)


class DepthConv(nn.Module):
    """1x1, leaky ReLU, depthwise 3x3, 1x1, plus a skip (a 1x1 where the width changes)."""

    def __init__(self, cin: int, cout: int) -> None:
        super().__init__()
        self.conv_in = PointwiseConv2d(cin, cin)
        self.dwconv = nn.Conv2d(cin, cin, 3, padding=1, groups=cin)
        self.conv_out = PointwiseConv2d(cin, cout)
        self.skip = PointwiseConv2d(cin, cout) if cin != cout else nn.Identity()
        self.register_buffer("exponents", exponents(3))

    def forward(self, x: Tensor) -> Tensor:
        return self.conv_out(self.dwconv(F.leaky_relu(self.conv_in(x), 0.01))) + self.skip(x)


class FeedForwardAdd(nn.Module):
    """1x1 to two halves, leaky ReLUs of slope .1 and .01, their sum, 1x1 back, plus the input."""

    def __init__(self, channels: int, expansion: int) -> None:
        super().__init__()
        self.conv_in = PointwiseConv2d(channels, 2 * expansion * channels)
        self.conv_out = PointwiseConv2d(expansion * channels, channels)
        self.register_buffer("exponents", exponents(3))

    def forward(self, x: Tensor) -> Tensor:
        a, b = self.conv_in(x).chunk(2, 1)
        return x + self.conv_out(F.leaky_relu(a, 0.1) + F.leaky_relu(b, 0.01))


class FeedForwardGate(FeedForwardAdd):
    """As :class:`FeedForwardAdd`, with the first half times the leaky ReLU of the second."""

    def forward(self, x: Tensor) -> Tensor:
        a, b = self.conv_in(x).chunk(2, 1)
        return x + self.conv_out(a * F.leaky_relu(b, 0.1))


class ResidualUpsample(nn.Module):
    """Twice the resolution: 1x1 and pixel shuffle, leaky ReLU, 3x3, leaky ReLU, plus a shuffled 1x1 skip."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv_up = PointwiseConv2d(channels, 4 * channels)
        self.conv = SteadyConv2d(channels, channels, 3, padding=1)
        self.skip = PointwiseConv2d(channels, 4 * channels)
        self.register_buffer("exponents", exponents(2))

    def forward(self, x: Tensor) -> Tensor:
        h = F.leaky_relu(F.pixel_shuffle(self.conv_up(x), 2), 0.01)
        return F.leaky_relu(self.conv(h), 0.1) + F.pixel_shuffle(self.skip(x), 2)


class HyperEncoder(nn.Sequential):
    """y (B, N, h, w), sides multiples of 4, to z (B, Z, h/4, w/4)."""

    def __init__(self, config: ModelConfig) -> None:
        n, z = config.latent, config.hyper
        super().__init__(
            DepthConv(n, z),
            FeedForwardAdd(z, config.prior_expansion),
            SteadyConv2d(z, z, 3, stride=2, padding=1),
            nn.LeakyReLU(0.01),
            SteadyConv2d(z, z, 3, stride=2, padding=1),
        )


class HyperDecoder(nn.Sequential):
    """Rounded z (B, Z, h/4, w/4) to features (B, N, h, w)."""

    def __init__(self, config: ModelConfig) -> None:
        n, z = config.latent, config.hyper
        super().__init__(
            ResidualUpsample(z),
            ResidualUpsample(z),
            DepthConv(z, n),
            FeedForwardAdd(n, config.prior_expansion),
        )


def _prior(widths: list[int], feed_forward: type[FeedForwardAdd], expansion: int) -> list[nn.Module]:
    return [
        nn.Sequential(DepthConv(cin, cout), feed_forward(cout, expansion)) for cin, cout in itertools.pairwise(widths)
    ]


class PriorFusion(nn.Sequential):
    """Hyper features to the parameters of the first step: (quant step,) log scale and mean, N channels each."""

    def __init__(self, config: ModelConfig) -> None:
        widths = [config.latent, *(int(m * config.latent) for m in config.fusion)]
        super().__init__(*_prior(widths, FeedForwardAdd, config.prior_expansion))


class SpatialPrior(nn.Sequential):
    """First-step symbols and parameters to the log scale and mean of the second step, N channels each."""

    def __init__(self, config: ModelConfig) -> None:
        entry = 4 if config.quant_step else 3
        widths = [int(m * config.latent) for m in (entry, *config.context)]
        super().__init__(*_prior(widths, FeedForwardGate, config.prior_expansion))


class DetailPrior(nn.Sequential):
    """Log scales of y (B, N, h, w), those it was coded with, to log scales of its detail (B, E, h, w).

    Means are 0, for components that y lacks do not follow from it.
    """

    def __init__(self, config: ModelConfig) -> None:
        if not config.linear_shortcut:
            raise ValueError(f"detail: {config.name} has no linear shortcut for it to stand beside")
        if config.detail % 2 or config.detail == config.latent:
            raise ValueError(f"detail: expected an even number other than latent, got {config.detail}")
        super().__init__(DepthConv(config.latent, config.detail))


class FactorizedPrior(nn.Module):
    """A learned monotone distribution function per channel (four layers, softplus and tanh; Ballé et al. 2018).

    The buffers ``table_*`` hold the coder's integer tables, made once when weights are exported.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.slopes = nn.Parameter(torch.randn(4, channels) * 0.01)
        self.offsets = nn.Parameter(torch.randn(4, channels) * 0.01)
        self.gates = nn.Parameter(torch.randn(3, channels) * 0.01)
        self.register_buffer("table_frequencies", torch.zeros(channels, 64, dtype=torch.int16))
        for name in ("table_sizes", "table_offsets", "table_shifts"):
            self.register_buffer(name, torch.zeros(channels, dtype=torch.int16))

    def set_tables(self, *arrays: np.ndarray) -> None:
        """Stores the coder's integer tables (frequencies, sizes, offsets, shifts) beside the weights they are of."""
        names = ("table_frequencies", "table_sizes", "table_offsets", "table_shifts")
        for name, array in zip(names, arrays, strict=True):
            getattr(self, name).copy_(torch.from_numpy(array.astype("int16")))

    def cdf(self, x: Tensor) -> Tensor:
        """(B, C, ...) values to their cumulative probability; the channel is dimension 1."""
        shape = (1, -1, *(1,) * (x.dim() - 2))
        for i in range(4):
            x = x * F.softplus(self.slopes[i]).view(shape) + self.offsets[i].view(shape)
            if i < 3:
                x = x + torch.tanh(x) * torch.tanh(self.gates[i]).view(shape)
        return torch.sigmoid(x)

    def bits(self, z: Tensor) -> Tensor:
        """Bits of a unit-wide interval around each value, elementwise; float32."""
        z = z.float()
        return -torch.log2((self.cdf(z + 0.5) - self.cdf(z - 0.5)).clamp_min(1e-6))
