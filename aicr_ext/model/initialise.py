"""Weights before training."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from aicr_ext.model.aicr import AICR
from aicr_ext.model.entropy import LOG_SCALE_MAX, LOG_SCALE_MIN
from aicr_ext.model.feedback import Feedback
from aicr_ext.model.layers import HybridBlock
from aicr_ext.model.scale import step_size
from aicr_ext.model.shortcut import ShortcutGate

__all__ = ["initialise", "initialise_detail", "initialise_linear"]

#: So many of the last channels of y have the scales that those of the detail begin with.
_NEAREST = 16

#: Logarithm of the noise, of pictures in [0, 1], that a Wiener filter begins with: little.
_NOISE = -4.0

#: What feedback begins with, before it becomes a share: 0.04 of what is wrong.
_SHARE = -4.0


@torch.no_grad()
def initialise(model: AICR) -> None:
    """Draws every convolution; blocks begin close to the identity.

    Detail begins as nothing until :func:`initialise_detail` has set it. Beside a linear shortcut the last
    convolutions of analysis and synthesis begin small too, so that training starts from the linear codec.
    """
    for module in model.modules():
        if not isinstance(module, nn.Conv2d):
            continue
        if module.groups == 1:
            nn.init.xavier_normal_(module.weight, 0.7)
        else:
            taps = module.kernel_size[0] * module.kernel_size[1]
            nn.init.normal_(module.weight, std=taps**-0.5)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
    for module in model.modules():
        if isinstance(module, HybridBlock):
            for part in (module.channel_attention, module.spatial_attention, module.feed_forward):
                part.project_out.weight.mul_(0.3)
    if model.analysis.tone is not None:
        model.analysis.tone.head.weight.zero_()
    for module in model.modules():
        if isinstance(module, ShortcutGate):
            module.around.weight.fill_(1 / 9)
            module.head.weight.zero_()
            if module.noise is not None:
                module.noise.weight.zero_()
                module.noise.bias.fill_(_NOISE)
            if module.whole is not None:
                module.local.weight.zero_()
                module.whole[-1].weight.zero_()
    for module in model.modules():
        if isinstance(module, Feedback):
            module.head.weight.zero_()
            module.head.bias.fill_(_SHARE)
    if model.detail_prior is not None:  # nothing is coded
        model.synthesis.detail.linear.weight.zero_()
        prior = model.detail_prior[-1]
        for parameter in (prior.conv_out.weight, prior.skip.weight, prior.skip.bias):
            parameter.zero_()
        prior.conv_out.bias.fill_(LOG_SCALE_MIN - 1)
    if model.config.linear_shortcut:
        model.analysis.head.weight.mul_(0.05)
        model.synthesis.tail[0].weight.mul_(0.05)


@torch.no_grad()
def initialise_linear(model: AICR, basis: Tensor, mean: Tensor, deviation: Tensor) -> None:
    """Sets the linear shortcut to the principal components of 16x16 RGB patches.

    Args:
        model: a model whose configuration has ``linear_shortcut``.
        basis: (N, 768) orthonormal rows, in the channel order of ``pixel_unshuffle(x, 16)``.
        mean: (768,) of the patches.
        deviation: (N,) standard deviation of each component; sets the first guess of the coded scales.
    """
    analysis, synthesis = model.analysis.linear, model.synthesis.linear
    analysis.weight.copy_(basis[:, :, None, None])
    analysis.bias.copy_(-(basis @ mean))
    synthesis.weight.copy_(basis.t()[:, :, None, None])
    synthesis.bias.copy_(mean)
    low, high = model.config.lambdas
    log_scale = (deviation / step_size((low * high) ** 0.5)).log().clamp(LOG_SCALE_MIN, LOG_SCALE_MAX)
    for prior in (model.prior_fusion, model.spatial_prior):
        prior[-1][-1].conv_out.bias[: model.config.latent].copy_(log_scale)


@torch.no_grad()
def initialise_detail(model: AICR, mean: Tensor, covariance: Tensor) -> None:
    """Sets the detail to the principal components of what the synthesis' linear shortcut cannot give.

    Its scales begin as a constant times those of the last channels of y, for where these have much to say there is
    detail too.

    Args:
        model: a model whose configuration has ``detail``; its shortcut is set already, or trained.
        mean, covariance: (768,) and (768, 768) of 16x16 RGB patches, channels as in ``pixel_unshuffle(x, 16)``.
    """
    count = model.config.detail
    given = torch.linalg.qr(model.synthesis.linear.weight[:, :, 0, 0].double())[0]
    others = torch.eye(len(mean), dtype=torch.float64) - given @ given.t()
    values, vectors = torch.linalg.eigh(others @ covariance.double() @ others)
    basis, values = vectors.flip(1)[:, :count].t().float(), values.flip(0)[:count].clamp_min(1e-9)
    analysis, synthesis, prior = model.analysis.detail, model.synthesis.detail, model.detail_prior[-1]
    analysis.linear.weight.copy_(basis[:, :, None, None])
    analysis.linear.bias.copy_(-(basis @ mean.float()))
    synthesis.linear.weight.copy_(basis.t()[:, :, None, None])
    last = model.analysis.linear.weight[-_NEAREST:, :, 0, 0].double()
    theirs = (last @ covariance.double() @ last.t()).diagonal().clamp_min(1e-9)
    prior.skip.weight.zero_()
    prior.skip.weight[:, -_NEAREST:] = 1 / _NEAREST
    prior.conv_out.bias.copy_(0.5 * (values.log() - theirs.log().mean()))
