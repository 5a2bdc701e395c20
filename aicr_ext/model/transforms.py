"""Analysis (picture to latent) and synthesis (latent to picture), with the rate scaling between them."""

from __future__ import annotations

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


def _stage(config: ModelConfig, index: int) -> list[nn.Module]:
    width, blocks = config.widths[index], config.blocks[index]
    return [HybridBlock(width, config.groups, config.kernel, config.expansion) for _ in range(blocks)]


def _downsample(cin: int, cout: int) -> nn.Module:
    return nn.Sequential(nn.Conv2d(cin, cout // 4, 3, padding=1, bias=False), nn.PixelUnshuffle(2))


def _upsample(cin: int, cout: int) -> nn.Module:
    return nn.Sequential(nn.Conv2d(cin, cout * 4, 3, padding=1, bias=False), nn.PixelShuffle(2))


#: Resolution (downscaling) at which the published networks apply the rate scale.
_SCALE_AT = 4


class Analysis(nn.Module):
    """Picture (B, 3, H, W) in [0, 1], sides multiples of 16, to y (B, N, H/16, W/16) in units of the step."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        widths = config.widths
        stem_in = 3 * config.stem**2
        unshuffle = [nn.PixelUnshuffle(config.stem)] if config.stem > 1 else []
        self.stem = nn.Sequential(*unshuffle, nn.Conv2d(stem_in, widths[0], 3, padding=1))
        self.stages = nn.ModuleList()
        self.downs = nn.ModuleList()
        factor, self.scale_after = config.stem, -1
        for i, width in enumerate(widths):
            self.stages.append(nn.Sequential(*_stage(config, i)))
            if factor < 16:
                following = widths[i + 1] if i + 1 < len(widths) else 2 * width
                self.downs.append(_downsample(width, following))
                factor *= 2
                if factor == _SCALE_AT:
                    self.scale_after = i
        last = widths[-1] if len(self.downs) < len(widths) else 2 * widths[-1]
        self.head = nn.Conv2d(last, config.latent, 3, padding=1)
        self.linear = nn.Conv2d(3 * 256, config.latent, 1) if config.linear_shortcut else None
        if config.linear_shortcut:
            low, high = config.lambdas
            self.scale = RateScale(config.latent, (1 / step_size(low), 1 / step_size(high)), True)
        else:
            self.scale = RateScale(4 * widths[0], (0.5, 2.0), False)

    def forward(self, x: Tensor, quality: Tensor) -> Tensor:
        scale = self.scale(quality)
        h = self.stem(x - 0.5 if self.linear is not None else x)
        for i, stage in enumerate(self.stages):
            h = stage(h)
            if i < len(self.downs):
                h = self.downs[i](h)
            if self.linear is None and i == self.scale_after:
                h = h * scale
        y = self.head(h)
        if self.linear is not None:
            y = (y.float() + linear_float32(self.linear, F.pixel_unshuffle(x, 16))) * scale
        return y.float()


class Synthesis(nn.Module):
    """Decoded latent (B, N, H/16, W/16) to the picture (B, 3, H, W); not clamped."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        widths = config.widths
        downs, factor = 0, config.stem
        while factor < 16:
            downs, factor = downs + 1, factor * 2
        first = widths[-1] if downs < len(widths) else 2 * widths[-1]
        self.head = nn.Conv2d(config.latent, first, 3, padding=1)
        self.ups = nn.ModuleList()
        self.stages = nn.ModuleList()
        self.scale_before = -1
        factor, width = 16, first
        order = list(range(len(widths)))[::-1]
        for n, i in enumerate(order):
            if width != widths[i]:
                self.ups.append(_upsample(width, widths[i]))
                factor //= 2
            else:
                self.ups.append(nn.Identity())
            if factor == _SCALE_AT:
                self.scale_before = n + 1
            self.stages.append(nn.Sequential(*_stage(config, i)))
            width = widths[i]
        shuffle = [nn.PixelShuffle(config.stem)] if config.stem > 1 else []
        self.tail = nn.Sequential(nn.Conv2d(width, 3 * config.stem**2, 3, padding=1), *shuffle)
        self.linear = nn.Conv2d(config.latent, 3 * 256, 1) if config.linear_shortcut else None
        if config.linear_shortcut:
            low, high = config.lambdas
            self.scale = RateScale(config.latent, (step_size(low), step_size(high)), True)
        else:
            self.scale = RateScale(4 * widths[0], (2.0, 0.5), False)

    def forward(self, y_hat: Tensor, quality: Tensor) -> Tensor:
        scale = self.scale(quality)
        if self.linear is not None:
            y_hat = y_hat * scale
        h = self.head(y_hat)
        for n, (up, stage) in enumerate(zip(self.ups, self.stages, strict=True)):
            if self.linear is None and n == self.scale_before:
                h = h * scale
            h = stage(up(h))
        x = self.tail(h)
        if self.linear is not None:
            x = x.float() + F.pixel_shuffle(linear_float32(self.linear, y_hat), 16)
        return x.float()
