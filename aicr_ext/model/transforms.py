"""Analysis (picture to latent) and synthesis (latent to picture), with the rate scaling between them."""

from __future__ import annotations

import itertools
import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from aicr_ext.model.config import QUALITIES, ModelConfig
from aicr_ext.model.layers import HybridBlock

__all__ = ["Analysis", "RateScale", "Synthesis", "step_size"]


def step_size(lam: float) -> float:
    """The uniform quantiser step that is optimal at high rate for a trade-off ``lam``: sqrt(6 / (lam ln 2))."""
    return math.sqrt(6.0 / (lam * math.log(2.0)))


def linear_float32(conv: nn.Conv2d, x: Tensor) -> Tensor:
    """A 1x1 convolution outside autocast: the linear path spans hundreds of steps, more than bfloat16 resolves."""
    if not torch.amp.is_autocast_available(x.device.type):  # the meta device
        return conv(x.float())
    with torch.autocast(x.device.type, enabled=False):
        return conv(x.float())


class RateScale(nn.Module):
    """A positive scale per channel, interpolated in the log domain between quality 0 and quality 63.

    ``channelwise``: both end points are vectors (aicr-t, on the latent); otherwise one learned vector times a
    scalar between two learned end values (as published, on the feature at 1/4).
    """

    def __init__(self, channels: int, ends: tuple[float, float], channelwise: bool) -> None:
        super().__init__()
        width = channels if channelwise else 1
        self.log_ends = nn.Parameter(torch.tensor(ends).log()[:, None].repeat(1, width))
        self.basic = None if channelwise else nn.Parameter(torch.ones(channels))

    def forward(self, quality: Tensor) -> Tensor:
        """(B,) integer or float quality indexes to scales (B, C, 1, 1)."""
        t = (quality.to(self.log_ends.dtype) / (QUALITIES - 1))[:, None]
        scale = torch.exp(self.log_ends[0] * (1 - t) + self.log_ends[1] * t)
        if self.basic is not None:
            scale = scale * self.basic
        return scale[:, :, None, None]


def _stage(config: ModelConfig, index: int) -> nn.Sequential:
    block = (config.widths[index], config.groups, config.kernel, config.expansion)
    return nn.Sequential(*(HybridBlock(*block) for _ in range(config.blocks[index])))


def _downsample(cin: int, cout: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(cin, cout // 4, 3, padding=1, bias=False), nn.PixelUnshuffle(2))


def _upsample(cin: int, cout: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(cin, cout * 4, 3, padding=1, bias=False), nn.PixelShuffle(2))


def _rate_scale(config: ModelConfig, ends: tuple[float, float]) -> RateScale:
    """On the latent beside a linear shortcut, else on the feature at 1/4, as published."""
    if config.linear_shortcut:
        return RateScale(config.latent, ends, channelwise=True)
    return RateScale(config.pyramid[2], ends, channelwise=False)


class Analysis(nn.Module):
    """Picture (B, 3, H, W) in [0, 1], sides multiples of 16, to y (B, N, H/16, W/16) in units of the step."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        widths = config.pyramid
        shuffle = [nn.PixelUnshuffle(config.stem)] if config.stem > 1 else []
        self.stem = nn.Sequential(*shuffle, nn.Conv2d(3 * config.stem**2, widths[0], 3, padding=1))
        self.stages = nn.ModuleList(_stage(config, i) for i in range(len(config.widths)))
        self.downs = nn.ModuleList(_downsample(a, b) for a, b in itertools.pairwise(widths))
        self.head = nn.Conv2d(widths[-1], config.latent, 3, padding=1)
        if config.linear_shortcut:
            low, high = config.lambdas
            self.linear = nn.Conv2d(3 * 256, config.latent, 1)
            self.scale = _rate_scale(config, (1 / step_size(low), 1 / step_size(high)))
        else:
            self.linear = None
            self.scale = _rate_scale(config, (0.5, 2.0))

    def forward(self, x: Tensor, quality: Tensor, taps: list[Tensor] | None = None) -> Tensor:
        """y. ``taps`` collects what a guidance branch compares: the feature that enters the middle stage, and y."""
        scale = self.scale(quality)
        h = self.stem(x if self.linear is None else x - 0.5)
        for i, stage in enumerate(self.stages):
            if taps is not None and i == len(self.stages) // 2:
                taps.append(h)
            h = stage(h)
            if i < len(self.downs):
                h = self.downs[i](h)
            if self.linear is None and i == 1:  # now at 1/4
                h = h * scale
        y = self.head(h).float()
        if self.linear is not None:
            y = (y + linear_float32(self.linear, F.pixel_unshuffle(x, 16))) * scale
        if taps is not None:
            taps.append(y)
        return y


class Synthesis(nn.Module):
    """Decoded latent (B, N, H/16, W/16) to the picture (B, 3, H, W); not clamped. The mirror of the analysis."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        widths = config.pyramid[::-1]
        self.head = nn.Conv2d(config.latent, widths[0], 3, padding=1)
        ups = [_upsample(a, b) for a, b in itertools.pairwise(widths)]
        stages = [_stage(config, i) for i in reversed(range(len(config.widths)))]
        if len(ups) < len(stages):
            ups.insert(0, nn.Identity())  # the first stage is at 1/16 already
        self.ups, self.stages = nn.ModuleList(ups), nn.ModuleList(stages)
        shuffle = [nn.PixelShuffle(config.stem)] if config.stem > 1 else []
        self.tail = nn.Sequential(nn.Conv2d(widths[-1], 3 * config.stem**2, 3, padding=1), *shuffle)
        if config.linear_shortcut:
            low, high = config.lambdas
            self.linear = nn.Conv2d(config.latent, 3 * 256, 1)
            self.scale = _rate_scale(config, (step_size(low), step_size(high)))
        else:
            self.linear = None
            self.scale = _rate_scale(config, (2.0, 0.5))

    def forward(self, y_hat: Tensor, quality: Tensor) -> Tensor:
        scale = self.scale(quality)
        if self.linear is not None:
            y_hat = y_hat * scale
        h = self.head(y_hat)
        for i, (up, stage) in enumerate(zip(self.ups, self.stages, strict=True)):
            h = stage(up(h))
            if self.linear is None and i == 1:  # now at 1/4
                h = h * scale
        x = self.tail(h).float()
        if self.linear is not None:
            x = x + F.pixel_shuffle(linear_float32(self.linear, y_hat), 16)
        return x
