"""The entropy networks in integers: the same table index and mean for every symbol on every machine.

A decoder must repeat the encoder's numbers to the last bit, and floating-point sums depend on their order. Here all is
int16 with sums in int32: the networks of :mod:`aicr_ext.model.entropy`, of pictures of one size, as (B, H, W, C)
tensors. What a picture gets does not depend on those beside it.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from aicr_ext.codec.fixed_point import (
    ASINH_EXPONENT,
    LIMIT,
    asinh_table,
    depthwise,
    linear,
    per_channel,
)
from aicr_ext.codec.tables import gaussian_sigmas
from aicr_ext.model.aicr import AICR, checkerboard
from aicr_ext.model.entropy import DepthConv, FeedForwardAdd, FeedForwardGate, ResidualUpsample, dead_zone
from aicr_ext.ops.integer import integer_asinh, integer_gate, integer_sum
from aicr_ext.ops.latent_reference import LOG_EXPONENT

__all__ = ["IntegerPriors"]

#: The networks see z with this exponent, and so up to 1023; real ones are below 100.
_Z_EXPONENT = 5

#: Values of one strip's input; larger maps are worked through in strips of rows, which changes no bit.
_STRIP_VALUES = 1 << 22

Step = Callable[[Tensor], Tensor]


class IntegerPriors:
    """Coding parameters of a model's latents, bit for bit the same wherever they are computed.

    They are int16 (B, h, w, K), as the operators in :mod:`aicr_ext.ops.latent` take them: log standard deviations and
    means of N channels; of the E channels of detail, log standard deviations alone. In a model with quantiser steps,
    these come first in the parameters of the first step.

    Args:
        model: a network in evaluation mode; its weights are read once, now.

    Raises:
        ValueError: weights so large that a sum could overflow.
    """

    def __init__(self, model: AICR) -> None:
        self.config = model.config
        self.mean_exponent = model.mean_exponents.int()
        device = self.mean_exponent.device
        self._table = asinh_table().to(device)
        sigmas = torch.from_numpy(gaussian_sigmas())
        #: Dead zone of each scale level, for the encoder.
        self.zones = dead_zone(sigmas.log()).float().to(device)
        #: Variance of each level, for the encoder's filter.
        self.variances = sigmas.square().float().to(device)
        n = self.config.latent
        logs = torch.full((n * (2 if self.config.quant_step else 1),), LOG_EXPONENT, device=device)
        first = torch.cat([logs, self.mean_exponent])
        second = torch.cat([logs[:n], self.mean_exponent])
        seen = torch.full((n,), ASINH_EXPONENT, device=device) if self._companded else self.mean_exponent
        hyper, exponent = _network("hyper_decoder", model.hyper_decoder, _Z_EXPONENT)
        fusion, _ = _network("prior_fusion", model.prior_fusion, exponent, first)
        spatial, _ = _network("spatial_prior", model.spatial_prior, torch.cat([seen, first]), second)
        self._hyper, self._fusion, self._spatial = hyper, fusion, spatial
        self._detail: list[Step] = []
        if model.detail_prior is not None:
            outputs = torch.full((self.config.detail,), LOG_EXPONENT, device=device)
            self._detail, _ = _network("detail_prior", model.detail_prior, logs[:n], outputs)

    @property
    def _companded(self) -> bool:
        return self.config.linear_shortcut

    def first(self, z: Tensor, height: int, width: int) -> Tensor:
        """Parameters of the first step, from the integers z (B, Z, ceil(h/4), ceil(w/4))."""
        seen = (z.permute(0, 2, 3, 1).int() << _Z_EXPONENT).clamp(-LIMIT, LIMIT).to(torch.int16)
        x = _in_order(self._hyper, seen.contiguous())
        x = _in_strips(self._fusion, x)
        return x[:, :height, :width].contiguous()

    def second(self, values: Tensor, first: Tensor) -> Tensor:
        """Parameters of the second step, from those of the first and its values (B, h, w, N), int32, 0 elsewhere."""
        if self._companded:
            seen = integer_asinh(values, self.mean_exponent, self._table)
        else:
            seen = values.clamp(-LIMIT, LIMIT).to(torch.int16)
        return _in_strips(self._spatial, torch.cat([seen, first], 3))

    def detail(self, first: Tensor, second: Tensor) -> Tensor:
        """Parameters of the detail, (B, h, w, E), from those of both steps of y."""
        n = self.config.latent
        of_first = checkerboard(n, *first.shape[1:3], first.device).permute(0, 2, 3, 1)
        return _in_strips(self._detail, torch.where(of_first, first[..., -2 * n : -n], second[..., :n]))


def _in_order(steps: list[Step], x: Tensor) -> Tensor:
    for step in steps:
        x = step(x)
    return x


def _in_strips(steps: list[Step], x: Tensor) -> Tensor:
    """Steps without upsampling, strip by strip; each reaches at most one row further."""
    pictures, height, width, channels = x.shape
    rows, reach = max(8, _STRIP_VALUES // (pictures * width * channels)), len(steps)
    parts = []
    for start in range(0, height, rows):
        first, last = max(start - reach, 0), min(start + rows + reach, height)
        part = _in_order(steps, x[:, first:last])
        parts.append(part[:, start - first : min(start + rows, height) - first])
    return parts[0] if len(parts) == 1 else torch.cat(parts, 1)


def _network(
    name: str, network: nn.Sequential, exponent: Tensor | int, outputs: Tensor | None = None
) -> tuple[list[Step], Tensor | int]:
    """The blocks of a network as integer functions, and the exponent of what the last one gives.

    Args:
        exponent: of the input, for all channels or for each.
        outputs: exponents of the channels of the last block's result, instead of the block's own.
    """
    blocks = [
        (block_name, block)
        for block_name, block in network.named_modules(prefix=name)
        if isinstance(block, (DepthConv, FeedForwardAdd, ResidualUpsample))
    ]
    steps: list[Step] = []
    for index, (block_name, block) in enumerate(blocks):
        own = block.exponents.tolist()
        if index + 1 == len(blocks) and outputs is not None:
            own[-1] = outputs
        step, exponent = _BLOCKS[type(block)](block_name, block, exponent, own)
        steps.append(step)
    return steps, exponent


def _matrix(module: nn.Conv2d) -> Tensor:
    return module.weight[:, :, 0, 0]


def _depth_conv(name: str, block: DepthConv, x: Tensor | int, own: list) -> tuple[Step, Tensor | int]:
    hidden, filtered, out = own
    enter = linear(f"{name}.conv_in", _matrix(block.conv_in), block.conv_in.bias, x, hidden, 0.01)
    look = depthwise(f"{name}.dwconv", block.dwconv, hidden, filtered)
    weight, bias = _matrix(block.conv_out), block.conv_out.bias
    if isinstance(block.skip, nn.Identity):
        leave = linear(f"{name}.conv_out", weight, bias, filtered, out, residual=x)
        return lambda t: leave(look(enter(t)), t), out
    # both convolutions as one, of both inputs side by side
    width = weight.shape[1]
    inputs = torch.cat([torch.full((width,), filtered), per_channel(x, width).cpu()]).to(weight.device)
    leave = linear(f"{name}.conv_out", torch.cat([weight, _matrix(block.skip)], 1), bias + block.skip.bias, inputs, out)
    return lambda t: leave(torch.cat([look(enter(t)), t], 3)), out


def _feed_forward(name: str, block: FeedForwardAdd, x: Tensor | int, own: list) -> tuple[Step, Tensor | int]:
    hidden, joined, out = own
    gate = isinstance(block, FeedForwardGate)
    channels = block.conv_out.weight.shape[1]
    slopes = torch.tensor([1.0, 0.1] if gate else [0.1, 0.01], device=block.conv_in.weight.device)
    slopes = slopes.repeat_interleave(channels)
    enter = linear(f"{name}.conv_in", _matrix(block.conv_in), block.conv_in.bias, x, hidden, slopes)
    joined = min(joined, 2 * hidden - 1) if gate else hidden
    leave = linear(f"{name}.conv_out", _matrix(block.conv_out), block.conv_out.bias, joined, out, residual=x)
    if gate:
        return lambda t: leave(integer_gate(enter(t), 2 * hidden - joined), t), out
    return lambda t: leave(integer_sum(enter(t)), t), out


def _upsample(name: str, block: ResidualUpsample, x: Tensor | int, own: list) -> tuple[Step, Tensor | int]:
    hidden, out = own
    weight = torch.cat([_matrix(block.conv_up), _matrix(block.skip)])
    bias = torch.cat([block.conv_up.bias, block.skip.bias])
    half = torch.ones(len(weight) // 2, device=weight.device)
    exponents = torch.cat([hidden * half, out * half]).long()
    enter = linear(f"{name}.conv_up", weight, bias, x, exponents, torch.cat([0.01 * half, half]))
    taps = block.conv.weight.permute(0, 2, 3, 1).flatten(1)  # (O, 9 C)
    leave = linear(f"{name}.conv", taps, block.conv.bias, hidden, out, 0.1, residual=out)

    def step(t: Tensor) -> Tensor:
        up, skip = (_pixel_shuffle(part) for part in enter(t).chunk(2, 3))
        return leave(_neighbours(up), skip)

    return step, out


_BLOCKS = {
    DepthConv: _depth_conv,
    FeedForwardAdd: _feed_forward,
    FeedForwardGate: _feed_forward,
    ResidualUpsample: _upsample,
}


def _pixel_shuffle(x: Tensor) -> Tensor:
    """(B, H, W, 4C) to (B, 2H, 2W, C), channels in the order of :func:`torch.nn.functional.pixel_shuffle`."""
    pictures, height, width, channels = x.shape
    x = x.reshape(pictures, height, width, channels // 4, 2, 2).permute(0, 1, 4, 2, 5, 3)
    return x.reshape(pictures, 2 * height, 2 * width, channels // 4)


def _neighbours(x: Tensor) -> Tensor:
    """(B, H, W, C) to (B, H, W, 9C): the 3x3 pixels around each, by row and column, zeros outside."""
    _, height, width, _ = x.shape
    padded = F.pad(x, (0, 0, 1, 1, 1, 1))
    windows = [padded[:, row : row + height, col : col + width] for row, col in itertools.product(range(3), range(3))]
    return torch.cat(windows, 3)
