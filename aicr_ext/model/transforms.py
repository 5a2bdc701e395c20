"""Analysis (picture to latent) and synthesis (latent to picture), with the rate scaling between them."""

from __future__ import annotations

import itertools

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from aicr_ext import ops
from aicr_ext.model.config import ModelConfig
from aicr_ext.model.detail import DetailAnalysis, DetailSynthesis
from aicr_ext.model.evidence import noise_evidence
from aicr_ext.model.feedback import Feedback
from aicr_ext.model.layers import HybridBlock
from aicr_ext.model.rows import over_rows
from aicr_ext.model.scale import RateScale, linear_float32, step_size
from aicr_ext.model.shortcut import ShortcutGate
from aicr_ext.nn import GELU, PointwiseConv2d, SteadyConv2d
from aicr_ext.ops.pointwise import is_traced

__all__ = ["Analysis", "Synthesis"]


class ToneField(nn.Module):
    """Undoes what light and air did to the colours: an affine map of RGB that varies slowly over the picture.

    A small network sees mean, lightest and darkest value of every 8 x 8 pixels, by their square roots because darkness
    lives in the smallest values, and gives, for every 64 x 64 pixels, a gain, a matrix (3, 3) and an offset (3,),
    interpolated in between: gain * (x + matrix x + offset). It begins as the identity. The residual blocks cannot do
    this well, for their norms divide by the very contrast that haze and darkness have changed. Not part of the
    published network.
    """

    def __init__(self, width: int = 64) -> None:
        super().__init__()
        self.look = nn.Sequential(
            SteadyConv2d(9, width // 2, 3, stride=2, padding=1),
            GELU(),
            SteadyConv2d(width // 2, width, 3, stride=2, padding=1),
            GELU(),
            SteadyConv2d(width, width, 3, stride=2, padding=1),
            GELU(),
        )
        self.mix = PointwiseConv2d(3 * width, width)
        self.head = PointwiseConv2d(width, 13)

    def field(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Gain (B, 1, H/4, W/4), and matrix and offset (B, 12, H/4, W/4), row by row (r, g, b, 1)."""
        rows = x.unflatten(2, (-1, 8))  # rows first: processors reduce many columns at a time
        seen = [t.unflatten(3, (-1, 8)) for t in (rows.mean(3), rows.amax(3), rows.amin(3))]
        seen = torch.cat([seen[0].mean(4), seen[1].amax(4), seen[2].amin(4)], 1)
        h = self.look((seen.clamp_min(0) + 1e-4).sqrt() - 0.5)
        overall = (h.mean((2, 3), keepdim=True).expand_as(h), h.amax((2, 3), keepdim=True).expand_as(h))
        h = self.head(ops.gelu(self.mix(torch.cat([h, *overall], 1)))).float()
        h = F.interpolate(h, (x.shape[2] // 4, x.shape[3] // 4), mode="bilinear", align_corners=False)
        return h[:, :1].clamp(-3, 3).exp(), h[:, 1:]

    def forward(self, x: Tensor) -> Tensor:
        """(B, 3, H, W) in [0, 1], sides multiples of 16, to the same shape; not clamped."""
        gain, affine = self.field(x)
        identity = torch.eye(3, 4, dtype=affine.dtype, device=affine.device).reshape(12, 1, 1)
        factors = (gain * (affine + identity)).contiguous()
        return over_rows(_toned, x, factors)


def _toned(x: Tensor, factors: Tensor) -> Tensor:
    """Pixels (B, 3, H, W), and factors (B, 12, H/4, W/4) that each hold for 4 x 4 of them, row by row (r, g, b, 1)."""
    # along a row they are repeated, so that inner loops are long
    factors = factors[..., None].expand(-1, -1, -1, -1, 4).flatten(3)[:, :, :, None]
    red, green, blue = x.unflatten(2, (-1, 4)).unbind(1)
    out = []
    for row in factors.unflatten(1, (3, 4)).unbind(1):
        r, g, b, one = row.unbind(1)
        out.append(torch.addcmul(torch.addcmul(torch.addcmul(one, r, red), g, green), b, blue))
    return torch.stack(out, 1).flatten(2, 3)


def _stage(config: ModelConfig, index: int) -> nn.Sequential:
    block = (config.widths[index], config.groups, config.kernel, config.expansion)
    return nn.Sequential(*(HybridBlock(*block) for _ in range(config.blocks[index])))


def _through(stage: nn.Sequential, x: Tensor, overwrite: bool) -> Tensor:
    """The blocks of a stage; ``overwrite``: x may be lost, and so may every map in between."""
    for block in stage:
        x = block(x, overwrite=overwrite)
    return x


def _is_watched(network: nn.Module) -> bool:
    """Whether forward hooks, or those before it, see maps, which they may keep."""
    everywhere = nn.modules.module._global_forward_hooks or nn.modules.module._global_forward_pre_hooks
    return bool(everywhere) or any(m._forward_hooks or m._forward_pre_hooks for m in network.modules())


class PixelShuffle(nn.PixelShuffle):
    """:class:`torch.nn.PixelShuffle` in the memory layout of the map; see :func:`aicr_ext.ops.pixel_shuffle`."""

    layout: torch.memory_format | None = None

    def forward(self, x: Tensor) -> Tensor:
        return ops.pixel_shuffle(x, self.upscale_factor, self.layout)


class PixelUnshuffle(nn.PixelUnshuffle):
    """:class:`torch.nn.PixelUnshuffle`, likewise."""

    layout: torch.memory_format | None = None

    def forward(self, x: Tensor) -> Tensor:
        return ops.pixel_unshuffle(x, self.downscale_factor, self.layout)


class ToPicture(PixelShuffle):
    """A map to a picture in NCHW."""

    layout = torch.contiguous_format


class FromPicture(PixelUnshuffle):
    """A picture to a channels-last map."""

    layout = torch.channels_last


def _downsample(cin: int, cout: int) -> nn.Sequential:
    return nn.Sequential(SteadyConv2d(cin, cout // 4, 3, padding=1, bias=False), PixelUnshuffle(2))


def _upsample(cin: int, cout: int) -> nn.Sequential:
    return nn.Sequential(SteadyConv2d(cin, cout * 4, 3, padding=1, bias=False), PixelShuffle(2))


def _rate_scale(config: ModelConfig, ends: tuple[float, float]) -> RateScale:
    """On the latent beside a linear shortcut, else on the feature at 1/4, as published."""
    if config.linear_shortcut:
        return RateScale(config.latent, ends, channelwise=True)
    return RateScale(config.pyramid[2], ends, channelwise=False)


class Analysis(nn.Module):
    """Picture (B, 3, H, W) in [0, 1], sides multiples of 16, to latents (B, N + E, H/16, W/16) in units of the step.

    The first N channels are y, the others its detail, if the configuration has any. With a Wiener filter N + E
    channels more follow, the standard deviations of the noise in each.

    With feedback the latents depend on what the synthesis makes of them, so it has to be given; without it they are
    those of the analysis alone.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        widths = config.pyramid
        shuffle = [FromPicture(config.stem)] if config.stem > 1 else []
        self.tone = ToneField() if config.tone_field else None
        self.sees_noise = config.noise_evidence
        self.stem = nn.Sequential(*shuffle, SteadyConv2d(3 * config.stem**2, widths[0], 3, padding=1))
        self.stages = nn.ModuleList(_stage(config, i) for i in range(len(config.widths)))
        self.downs = nn.ModuleList(_downsample(a, b) for a, b in itertools.pairwise(widths))
        self.head = SteadyConv2d(widths[-1], config.latent, 3, padding=1)
        if config.linear_shortcut:
            low, high = config.lambdas
            ends = (1 / step_size(low), 1 / step_size(high))
            self.linear = PointwiseConv2d(3 * 256, config.latent)
            self.gate = None
            if config.shortcut_gate:
                self.gate = ShortcutGate(
                    widths[-1], config.latent, noise=config.wiener_filter, evidence=config.noise_evidence
                )
            self.scale = _rate_scale(config, ends)
            self.detail = None
            if config.detail:
                self.detail = DetailAnalysis(
                    widths[-1], config.detail, ends, config.wiener_filter, config.noise_evidence, config.feedback
                )
        else:
            self.linear = self.gate = self.detail = None
            self.scale = _rate_scale(config, (0.5, 2.0))
        self.feedback = Feedback(config.latent) if config.feedback else None

    def forward(
        self, x: Tensor, quality: Tensor, taps: list[Tensor] | None = None, synthesis: Synthesis | None = None
    ) -> Tensor:
        """The latents. ``taps`` collects what a guidance branch compares: y and the feature before the middle stage."""
        scale, overwrite = self.scale(quality), taps is None and not _is_watched(self)
        if self.tone is not None:
            x = self.tone(x)
        evidence = noise_evidence(x) if self.sees_noise else None
        h = self.stem(x) if self.linear is None else self._centred_stem(x, overwrite)
        for i, stage in enumerate(self.stages):
            if taps is not None and i == len(self.stages) // 2:
                taps.append(h)
            h = _through(stage, h, overwrite)
            if i < len(self.downs):
                h = self.downs[i](h)
            if self.linear is None and i == 1:  # now at 1/4
                h = (h * scale).to(h.dtype)
        y = self.head(h).float()
        noises = []
        if self.linear is not None:
            patches = ops.pixel_unshuffle(x, 16, torch.channels_last)
            linear = linear_float32(self.linear, patches)
            if self.gate is not None:
                factor, noise = self.gate(h, linear, evidence)
                linear = linear * factor
                noises = [] if noise is None else [noise * scale]
            y = (y + linear) * scale
        if taps is not None:
            taps.append(y)
        latents = [y]
        if self.detail is not None:
            detail, noise = self.detail(h, patches, quality, evidence)
            latents.append(detail)
            noises += [] if noise is None else [noise]
        if self.feedback is not None and synthesis is not None:
            del h, patches, linear  # memory, for the synthesis needs some
            return self._corrected(x, torch.cat(latents, 1), noises, evidence, quality, synthesis)
        return y if len(latents + noises) == 1 else torch.cat(latents + noises, 1)

    def _centred_stem(self, x: Tensor, overwrite: bool) -> Tensor:
        """The stem of x - 0.5; ``overwrite``: nobody sees the maps in it."""
        if not overwrite or torch.is_grad_enabled() or is_traced(x) or not isinstance(self.stem[0], FromPicture):
            return self.stem(x - 0.5)
        return self.stem[1:](self.stem[0](x).sub_(0.5))  # without another map of the picture's size

    def _corrected(
        self,
        x: Tensor,
        latents: Tensor,
        noises: list[Tensor],
        evidence: tuple[Tensor, Tensor],
        quality: Tensor,
        synthesis: Synthesis,
    ) -> Tensor:
        """Latents and their noise after feedback (:class:`Feedback`) of what the synthesis makes of them."""
        with torch.no_grad():
            wrong = synthesis.components(x - synthesis(latents, quality))
        share, scale = self.shares(wrong, evidence, quality), self.scale(quality)
        if self.detail is not None:
            scale = torch.cat([scale, self.detail.scale(quality)], 1)
        latents = latents + share * scale * wrong
        return torch.cat([latents, torch.cat(noises, 1) * (1 + share)], 1) if noises else latents

    def shares(self, wrong: Tensor, evidence: tuple[Tensor, Tensor], quality: Tensor) -> Tensor:
        """What :class:`Feedback` takes of each component (B, N + E, h, w) of a difference."""
        n = self.scale.log_ends.shape[1]
        share = self.feedback(wrong[:, :n], evidence, quality)
        if self.detail is None:
            return share
        return torch.cat([share, self.detail.feedback(wrong[:, n:], evidence, quality)], 1)


#: Rows of a latent whose patches are in memory at a time where no derivative needs them.
_ROWS = 32


class Synthesis(nn.Module):
    """Decoded latents (B, N + E, H/16, W/16) to the picture (B, 3, H, W); not clamped. The mirror of the analysis."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        widths = config.pyramid[::-1]
        self.head = SteadyConv2d(config.latent, widths[0], 3, padding=1)
        ups = [_upsample(a, b) for a, b in itertools.pairwise(widths)]
        stages = [_stage(config, i) for i in reversed(range(len(config.widths)))]
        if len(ups) < len(stages):
            ups.insert(0, nn.Identity())  # the first stage is at 1/16 already
        self.ups, self.stages = nn.ModuleList(ups), nn.ModuleList(stages)
        shuffle = [ToPicture(config.stem)] if config.stem > 1 else []
        self.tail = nn.Sequential(SteadyConv2d(widths[-1], 3 * config.stem**2, 3, padding=1), *shuffle)
        if config.linear_shortcut:
            low, high = config.lambdas
            ends = (step_size(low), step_size(high))
            self.linear = PointwiseConv2d(config.latent, 3 * 256)
            self.scale = _rate_scale(config, ends)
            self.detail = DetailSynthesis(config.detail, ends) if config.detail else None
        else:
            self.linear = self.detail = None
            self.scale = _rate_scale(config, (2.0, 0.5))

    def components(self, x: Tensor) -> Tensor:
        """Components (B, N + E, H/16, W/16) of a picture (B, 3, H, W) that the linear shortcut, and that of the detail,
        can show: products with what each of them adds to the picture.
        """
        weight = self.linear.weight
        if self.detail is not None:
            weight = torch.cat([weight, self.detail.linear.weight], 1)
        weight = weight.transpose(0, 1).float()
        parts = []
        for rows in x.split(16 * _ROWS, 2):
            patches = ops.pixel_unshuffle(rows, 16, torch.channels_last)
            parts.append(linear_float32(lambda t: ops.pointwise_convolution(t, weight), patches))
        return parts[0] if len(parts) == 1 else torch.cat(parts, 2)

    def forward(self, latents: Tensor, quality: Tensor) -> Tensor:
        scale, overwrite = self.scale(quality), not _is_watched(self)
        y_hat = latents if self.detail is None else latents[:, : self.head.in_channels]
        if self.linear is not None:
            y_hat = y_hat * scale
        h = self.head(y_hat)
        for i, (up, stage) in enumerate(zip(self.ups, self.stages, strict=True)):
            h = _through(stage, up(h), overwrite)
            if self.linear is None and i == 1:  # now at 1/4
                h = (h * scale).to(h.dtype)
        x = self.tail(h).float()
        if self.linear is None:
            return x
        del h
        detail = None if self.detail is None else latents[:, y_hat.shape[1] :]
        if torch.is_grad_enabled() or is_traced(x) or not overwrite:
            return x + self._linear_picture(y_hat, detail, quality)
        for first in range(0, y_hat.shape[2], _ROWS):  # little memory, and there is no other map of the picture's size
            rows = slice(first, first + _ROWS)
            part = None if detail is None else detail[:, :, rows]
            of_picture = x[:, :, 16 * first : 16 * (first + _ROWS)]
            of_picture.add_(self._linear_picture(y_hat[:, :, rows], part, quality))
        return x

    def _linear_picture(self, y_hat: Tensor, detail: Tensor | None, quality: Tensor) -> Tensor:
        """What the linear paths make of scaled y and of the detail."""
        patches = linear_float32(self.linear, y_hat)
        if detail is not None:
            patches = patches + self.detail(detail, quality)
        return ops.pixel_shuffle(patches, 16, torch.contiguous_format)
