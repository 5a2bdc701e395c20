"""The whole network: analysis, entropy model with the two-step spatial prior, synthesis."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from aicr_ext.model.config import ModelConfig, get_config
from aicr_ext.model.entropy import (
    DetailPrior,
    FactorizedPrior,
    HyperDecoder,
    HyperEncoder,
    PriorFusion,
    SpatialPrior,
    exponents,
    filtered,
    gaussian_bits,
    quantised,
)
from aicr_ext.model.transforms import Analysis, Synthesis

__all__ = ["AICR", "Output", "checkerboard"]


class Output(NamedTuple):
    """What a training step sees: the picture (B, 3, H, W) and the bits per pixel (B,) of y and z."""

    picture: Tensor
    y_bpp: Tensor
    z_bpp: Tensor


def checkerboard(channels: int, height: int, width: int, device: torch.device | None = None) -> Tensor:
    """Bool (1, channels, height, width): where the first step codes.

    The first half of the channels on the cells whose row and column sum is even, the second half on the others.
    """
    rows = torch.arange(height, device=device)[:, None]
    cols = torch.arange(width, device=device)[None]
    even = (rows + cols) % 2 == 0
    return torch.cat([even.expand(channels // 2, -1, -1), ~even.expand(channels // 2, -1, -1)])[None]


def round_ste(x: Tensor) -> Tensor:
    """Rounds to nearest; the gradient passes as if it did not."""
    return x + (torch.round(x) - x).detach()


def asinh(y: Tensor) -> Tensor:
    """The inverse hyperbolic sine; on a CPU, where no gradient is wanted, of operations that torch has in vectors."""
    if torch.is_grad_enabled() or y.device.type != "cpu":
        return torch.asinh(y)
    size = y.abs()
    root = (size * size).add_(1).sqrt_()
    return root.add_(1).reciprocal_().mul_(size).mul_(size).add_(size).log1p_().copysign_(y)  # log(size + root)


class AICR(nn.Module):
    """All-in-one image compression and restoration (WACV 2025).

    Pictures are RGB in [0, 1], (B, 3, H, W), with sides that are multiples of 16; quality is (B,) in 0..63.
    """

    def __init__(self, config: ModelConfig | str) -> None:
        super().__init__()
        self.config = get_config(config) if isinstance(config, str) else config
        if self.config.wiener_filter and (self.config.quant_step or not self.config.shortcut_gate):
            raise ValueError(f"wiener_filter: {self.config.name} needs a gate, and no quantiser steps of the priors")
        if self.config.noise_evidence and not self.config.shortcut_gate:
            raise ValueError(f"noise_evidence: {self.config.name} has no gate to see it")
        if self.config.feedback and not (self.config.linear_shortcut and self.config.noise_evidence):
            raise ValueError(f"feedback: {self.config.name} needs a linear shortcut and noise_evidence")
        self.analysis = Analysis(self.config)
        self.synthesis = Synthesis(self.config)
        self.hyper_encoder = HyperEncoder(self.config)
        self.hyper_decoder = HyperDecoder(self.config)
        self.prior_fusion = PriorFusion(self.config)
        self.spatial_prior = SpatialPrior(self.config)
        self.hyper_prior = FactorizedPrior(self.config.hyper)
        self.register_buffer("mean_exponents", exponents(self.config.latent, 6))  # of the means of both steps
        self.detail_prior = DetailPrior(self.config) if self.config.detail else None

    def hyper_analysis(self, y: Tensor) -> Tensor:
        """z before rounding, (B, Z, ceil(h/4), ceil(w/4)), of y (B, N, h, w)."""
        h, w = y.shape[2:]
        if h % 4 or w % 4:
            y = F.pad(y, (0, -w % 4, 0, -h % 4), mode="replicate")
        return self.hyper_encoder(self.companded(y)).float()

    def first_parameters(self, z_hat: Tensor, height: int, width: int) -> Tensor:
        """Parameters (B, 2N or 3N, h, w) that the first step is coded with, from the rounded z."""
        return self.prior_fusion(self.hyper_decoder(z_hat))[:, :, :height, :width].float()

    def second_parameters(self, y_first: Tensor, parameters: Tensor) -> Tensor:
        """Log scale and mean (B, 2N, h, w) of the second step, from the first step's decoded values (0 elsewhere)."""
        return self.spatial_prior(torch.cat([self.companded(y_first), parameters], 1)).float()

    def detail_parameters(self, log_scale: Tensor) -> Tensor:
        """Log scale (B, E, h, w) of the detail, from that (B, N, h, w) of y: of each symbol as it was coded."""
        return self.detail_prior(log_scale).float()

    def companded(self, y: Tensor) -> Tensor:
        """What the entropy networks see of a latent: asinh(y) beside a linear shortcut, whose range is wide."""
        return asinh(y) if self.config.linear_shortcut else y

    def forward(self, x: Tensor, quality: Tensor, taps: list[Tensor] | None = None) -> Output:
        """The relaxed codec of training: noise for the rate, straight-through rounding for the picture.

        In evaluation mode both are of the symbols that the codec codes, but for its integers.
        ``taps`` is for :meth:`Analysis.forward`.
        """
        latents = self.analysis(x, quality, taps, self.synthesis)
        (y, detail), (noise, detail_noise) = self.y_and_detail(latents), self.noise(latents)
        h, w = y.shape[2:]
        z = self.hyper_analysis(y)
        noisy_z = z + torch.rand_like(z) - 0.5 if self.training else torch.round(z)
        parameters = self.first_parameters(round_ste(z), h, w)
        step, log_scale, mean = self.config.split(parameters)
        if step is not None:
            y = y / step
        first = checkerboard(y.shape[1], h, w, y.device)
        y_first = (self._rounded(filtered(y - mean, log_scale, noise), log_scale) + mean) * first
        log_scale_2, mean_2 = self.second_parameters(y_first, parameters).chunk(2, 1)
        log_scale = torch.where(first, log_scale, log_scale_2)
        mean = torch.where(first, mean, mean_2)
        pixels = x.shape[2] * x.shape[3]
        coded, bits = self._coded(y - mean, log_scale, noise)
        latents = coded + mean if step is None else (coded + mean) * step
        if self.detail_prior is not None:
            coded, more = self._coded(detail, self.detail_parameters(log_scale), detail_noise)
            latents, bits = torch.cat([latents, coded], 1), bits + more
        return Output(
            self.synthesis(latents, quality), bits / pixels, self.hyper_prior.bits(noisy_z).sum((1, 2, 3)) / pixels
        )

    def y_and_detail(self, latents: Tensor) -> tuple[Tensor, Tensor]:
        """The two parts of latents (B, N + E or more, h, w)."""
        return latents[:, : self.config.latent], latents[:, self.config.latent : self.config.components]

    def noise(self, latents: Tensor) -> tuple[Tensor | None, Tensor | None]:
        """Standard deviations of the noise in y and in its detail, of all that the analysis gives; None: no filter."""
        if not self.config.wiener_filter:
            return None, None
        return self.y_and_detail(latents[:, self.config.components :])

    def _rounded(self, residual: Tensor, log_scale: Tensor) -> Tensor:
        return round_ste(residual) if self.training else quantised(residual, log_scale)

    def _coded(self, residual: Tensor, log_scale: Tensor, noise: Tensor | None) -> tuple[Tensor, Tensor]:
        """What is coded of a residual, and its bits in each picture (B,)."""
        residual = filtered(residual, log_scale, noise)
        coded = self._rounded(residual, log_scale)
        noisy = residual + torch.rand_like(residual) - 0.5 if self.training else coded
        return coded, gaussian_bits(noisy, log_scale).sum((1, 2, 3))
