"""Weights before training."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from aicr_ext.model.aicr import AICR
from aicr_ext.model.entropy import LOG_SCALE_MAX, LOG_SCALE_MIN
from aicr_ext.model.layers import HybridBlock
from aicr_ext.model.transforms import step_size

__all__ = ["initialise", "initialise_linear"]


@torch.no_grad()
def initialise(model: AICR) -> None:
    """Draws every convolution; blocks begin close to the identity.

    Beside a linear shortcut the last convolutions of analysis and synthesis begin small too, so that training
    starts from the linear codec.
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
    if model.analysis.gate is not None:
        model.analysis.gate.around.weight.fill_(1 / 9)
        model.analysis.gate.head.weight.zero_()
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
