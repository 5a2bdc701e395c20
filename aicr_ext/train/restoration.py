"""Objectives that teach the analysis to restore, before the whole network is trained together.

They need neither rate nor decoder, so a step is cheap and its gradient goes straight to what is to learn:

* ``tone``: the tone field alone. Means over 16 x 16 pixels of what it makes of the input approach those of the
  target; rain, noise and texture do not matter to them, light and air do.
* ``latent``: tone field and analysis. y of the input approaches the y that the weights the run starts from make of the
  target. What is coded then looks like clean pictures to the rest of the codec, which stays as it is.

Distances enter as roots, so that a dark picture far from its target pulls no harder than a clean one near it.
"""

from __future__ import annotations

import copy

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from aicr_ext.model.aicr import AICR
from aicr_ext.model.feedback import Feedback
from aicr_ext.model.shortcut import ShortcutGate

__all__ = ["OBJECTIVES", "Restoration", "latent_loss", "tone_loss"]

#: What a run can minimise; the first is that of :mod:`aicr_ext.train.losses`.
OBJECTIVES = ("rate_distortion", "tone", "latent")

#: Quality whose quantiser steps are the unit of latent distances.
_QUALITY = 32


def tone_loss(picture: Tensor, target: Tensor) -> Tensor:
    """Mean over pictures (B, 3, H, W) of the root mean square difference of their 16 x 16 means; RGB in [0, 1]."""
    difference = F.avg_pool2d(picture.float(), 16) - F.avg_pool2d(target, 16)
    return (difference.square().mean((1, 2, 3)) + 1e-4).sqrt().mean()


def latent_loss(y: Tensor, target: Tensor) -> Tensor:
    """Mean over pictures of the root mean square difference of latents (B, N, h, w), in quantiser steps."""
    return ((y - target).square().mean((1, 2, 3)) + 0.02).sqrt().mean()


class Restoration:
    """One of the two objectives, for a model that has the weights it starts from.

    Only what the objective trains keeps ``requires_grad``.

    Raises:
        ValueError: a model without tone field.
    """

    def __init__(self, objective: str, model: AICR) -> None:
        analysis = model.analysis
        if analysis.tone is None:
            raise ValueError(f"objective: {objective} needs a tone field, which {model.config.name} has not")
        self.clean, self.components = None, model.config.components
        if objective == "latent":
            self.clean = copy.deepcopy(analysis).requires_grad_(False)
            self.clean.tone = None
        model.requires_grad_(False)
        trained = analysis.tone if objective == "tone" else analysis
        trained.requires_grad_(True)
        analysis.scale.requires_grad_(False)
        if analysis.detail is not None:
            analysis.detail.scale.requires_grad_(False)
        for module in analysis.modules():
            if isinstance(module, Feedback):
                module.requires_grad_(False)
            elif isinstance(module, ShortcutGate) and module.noise is not None:
                module.noise.requires_grad_(False)

    def to(self, device: torch.device) -> None:
        if self.clean is not None:
            self.clean.to(device, memory_format=torch.channels_last)

    def __call__(self, analysis: nn.Module, source: Tensor, target: Tensor) -> Tensor:
        """The loss of a batch: inputs and targets (B, 3, H, W) in [0, 1]."""
        loss = tone_loss(analysis.tone(source), target)
        if self.clean is None:
            return loss
        quality = torch.full((len(source),), _QUALITY, device=source.device)
        with torch.no_grad():
            aim = self.clean(target, quality)[:, : self.components]  # not the noise in them
        return loss + latent_loss(analysis(source, quality)[:, : self.components], aim)
