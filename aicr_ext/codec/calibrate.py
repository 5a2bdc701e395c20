"""How many binary places the tensors of the entropy networks get: measured on pictures when weights are exported."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from aicr_ext.codec.fixed_point import exponent_for
from aicr_ext.model.aicr import AICR
from aicr_ext.model.config import QUALITIES
from aicr_ext.model.entropy import DepthConv, FeedForwardAdd, FeedForwardGate, ResidualUpsample

__all__ = ["calibrate"]

_QUALITIES = (0, QUALITIES // 2, QUALITIES - 1)


@torch.no_grad()
def calibrate(model: AICR, pictures: Iterable[Tensor]) -> None:
    """Sets the buffers ``exponents`` and ``mean_exponents`` of a model in evaluation mode.

    Numbers four times the largest that came up still fit; beyond that they saturate, in encoder and decoder alike.

    Args:
        pictures: batches (B, 3, H, W) in [0, 1], sides multiples of 64; each is tried at three qualities.
    """
    largest: dict[int, Tensor] = {}  # by id of the buffer, one number for each of its exponents
    hooks = []

    def watch(module: nn.Module, buffer: Tensor, place: int | slice, inputs: bool = False) -> None:
        def saw(_: nn.Module, given: tuple[Tensor, ...], result: Tensor) -> None:
            seen = (given[0] if inputs else result).abs()
            seen = seen[:, -len(buffer) :].amax((0, 2, 3)) if place == slice(None) else seen.max()
            values = largest.setdefault(id(buffer), torch.zeros(len(buffer), device=seen.device))
            values[place] = torch.maximum(values[place], seen)

        hooks.append(module.register_forward_hook(saw))

    with_means = (model.prior_fusion, model.spatial_prior)
    detail = () if model.detail_prior is None else (model.detail_prior,)
    networks = (model.hyper_decoder, *with_means, *detail)
    blocks = [b for network in networks for b in network.modules() if isinstance(b, tuple(_WATCHED))]
    for block in blocks:
        for name, place, inputs in _WATCHED[type(block)]:
            watch(block.get_submodule(name), block.exponents, place, inputs)
    for network in with_means:  # the last channels of their results
        watch(network, model.mean_exponents, slice(None))
    try:
        for batch in pictures:
            for quality in _QUALITIES:
                model(batch, torch.full((len(batch),), quality, device=batch.device))
    finally:
        for hook in hooks:
            hook.remove()
    for block in blocks:
        _set(block.exponents, largest[id(block.exponents)])
    _set(model.mean_exponents, largest[id(model.mean_exponents)].clamp_min(0.5))


def _set(buffer: Tensor, largest: Tensor) -> None:
    values = [exponent_for(value) for value in largest.tolist()]
    buffer.copy_(torch.tensor(values, dtype=buffer.dtype))


# What decides each exponent of a block: (module, exponent, whether its input instead of its result).
_FEED_FORWARD = [("conv_in", 0, False), ("conv_out", 1, True), ("", 2, False)]
_WATCHED = {
    DepthConv: [("conv_in", 0, False), ("dwconv", 1, False), ("", 2, False)],
    FeedForwardAdd: [*_FEED_FORWARD, ("conv_out", 0, True)],
    FeedForwardGate: _FEED_FORWARD,
    ResidualUpsample: [("conv_up", 0, False), ("conv", 1, False), ("skip", 1, False), ("", 1, False)],
}
