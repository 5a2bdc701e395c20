"""The entropy networks in exact arithmetic: the same table index and mean for every symbol on every machine.

A decoder must repeat the encoder's numbers to the last bit, and floating-point sums depend on their order. So the
weights and the inputs of every convolution are put on a grid of binary fractions, coarse enough that a float64 holds
every partial sum of their products exactly: additions of exact numbers give one result in any order, on any processor,
with any number of threads. All else is single additions, multiplications, divisions and square roots, which IEEE 754
rounds in one way only. Logarithms, whose last bit it leaves open, are built from those.

The networks are those of :mod:`aicr_ext.model.entropy`, one picture at a time, as (H, W, C) tensors.
"""

from __future__ import annotations

import itertools

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from aicr_ext.model.aicr import AICR
from aicr_ext.model.entropy import (
    SCALE_LEVELS,
    DepthConv,
    FeedForwardAdd,
    FeedForwardGate,
    ResidualUpsample,
)

__all__ = ["ExactPriors", "asinh", "scale_level"]

#: Inputs of convolutions are multiples of 2**-10 of at most 2**11; weights are multiples of 2**-16.
_INPUT_GRID, _INPUT_LIMIT = 2.0**10, 2.0**11
_WEIGHT_GRID = 2.0**16
#: Largest sum of products, in units of the product's grid, that float64 holds exactly.
_EXACT = 2.0**53

#: Values of one strip's input; larger maps are worked through in strips of rows, which changes no bit.
_STRIP_VALUES = 1 << 20

# Written out: a library's logarithm may differ in the last bit.
_LOG_SCALE_MIN = -2.2072749131897207
_LEVELS_PER_UNIT = 19.949237839971456
_LN2 = 0.6931471805599453


class ExactPriors:
    """Coding parameters of a model's latents, bit for bit the same wherever they are computed.

    Args:
        model: a network in evaluation mode; its weights are read once, now.

    Raises:
        ValueError: weights so large that a sum could leave the exact range.
    """

    def __init__(self, model: AICR) -> None:
        self.config = model.config
        self.hyper_decoder = model.hyper_decoder
        self.prior_fusion = model.prior_fusion
        self.spatial_prior = model.spatial_prior
        self._weights = {
            id(module): _exact_weights(name, module)
            for network in ("hyper_decoder", "prior_fusion", "spatial_prior")
            for name, module in getattr(model, network).named_modules(prefix=network)
            if isinstance(module, nn.Conv2d)
        }

    def first_parameters(self, z: Tensor, height: int, width: int) -> Tensor:
        """Parameters (h, w, 2N or 3N) of the first step, from the integers z (1, Z, ceil(h/4), ceil(w/4)); float64."""
        x = z[0].permute(1, 2, 0).double()
        x = self._in_strips(self.prior_fusion, self._run(self.hyper_decoder, x))
        return x[:height, :width]

    def second_parameters(self, y_first: Tensor, parameters: Tensor) -> Tensor:
        """Log scale and mean (h, w, 2N) of the second step, from the first step's values (h, w, N), 0 elsewhere."""
        seen = asinh(y_first) if self.config.linear_shortcut else y_first
        return self._in_strips(self.spatial_prior, torch.cat([seen, parameters], 2))

    def _in_strips(self, network: nn.Sequential, x: Tensor) -> Tensor:
        """A network without upsampling, strip by strip; each 3x3 convolution in it reaches one row further."""
        height, width, channels = x.shape
        rows, reach = max(8, _STRIP_VALUES // (width * channels)), len(network)
        parts = []
        for start in range(0, height, rows):
            first, last = max(start - reach, 0), min(start + rows + reach, height)
            part = self._run(network, x[first:last])
            parts.append(part[start - first : min(start + rows, height) - first])
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    def _run(self, module: nn.Module, x: Tensor) -> Tensor:
        if isinstance(module, nn.Sequential):
            for part in module:
                x = self._run(part, x)
            return x
        if isinstance(module, DepthConv):
            skip = x if isinstance(module.skip, nn.Identity) else self._conv(module.skip, x)
            h = F.leaky_relu_(self._conv(module.conv_in, x), 0.01)
            return self._conv(module.conv_out, self._conv(module.dwconv, h)).add_(skip)
        if isinstance(module, FeedForwardAdd):
            a, b = self._conv(module.conv_in, x).chunk(2, 2)
            if isinstance(module, FeedForwardGate):
                hidden = F.leaky_relu(b, 0.1).mul_(a)
            else:
                hidden = F.leaky_relu(a, 0.1).add_(F.leaky_relu(b, 0.01))
            return self._conv(module.conv_out, hidden).add_(x)
        if isinstance(module, ResidualUpsample):
            h = F.leaky_relu_(_pixel_shuffle(self._conv(module.conv_up, x)), 0.01)
            h = F.leaky_relu_(self._conv(module.conv, h), 0.1)
            return h.add_(_pixel_shuffle(self._conv(module.skip, x)))
        raise TypeError(f"no exact form of {type(module).__name__}")

    def _conv(self, module: nn.Conv2d, x: Tensor) -> Tensor:
        """A convolution of stride 1 and same size, exact; kinds: 1x1, 3x3, depthwise 3x3."""
        weight, bias = self._weights[id(module)]
        x = torch.round(x * _INPUT_GRID).clamp_(-_INPUT_LIMIT * _INPUT_GRID, _INPUT_LIMIT * _INPUT_GRID)
        x.mul_(1 / _INPUT_GRID)
        if module.kernel_size == (1, 1):
            return (x @ weight[0, 0]).add_(bias)
        height, width, _ = x.shape
        out = bias.expand(height, width, -1).clone()
        padded = F.pad(x, (0, 0, 1, 1, 1, 1))
        for row, col in itertools.product(range(3), range(3)):
            window = padded[row : row + height, col : col + width]
            out += window * weight[row, col] if module.groups > 1 else window @ weight[row, col]
        return out


def _exact_weights(name: str, module: nn.Conv2d) -> tuple[Tensor, Tensor]:
    """Weights (kernel rows, kernel columns, in, out), without "in" for depthwise ones, and bias, on their grids."""
    weight = torch.round(module.weight.detach().double() * _WEIGHT_GRID) / _WEIGHT_GRID
    grid = _INPUT_GRID * _WEIGHT_GRID
    bias = torch.round(module.bias.detach().double() * grid) / grid
    largest = float((weight.abs().sum((1, 2, 3)) * _INPUT_LIMIT + bias.abs()).max()) * grid
    if not largest < _EXACT:
        raise ValueError(f"{name}: sums up to {largest:.3g} units leave the exact range of float64, {_EXACT:.3g}")
    if module.groups > 1:
        return weight[:, 0].permute(1, 2, 0).contiguous(), bias
    return weight.permute(2, 3, 1, 0).contiguous(), bias


def _pixel_shuffle(x: Tensor) -> Tensor:
    """(H, W, 4C) to (2H, 2W, C), channels in the order of :func:`torch.nn.functional.pixel_shuffle`."""
    height, width, channels = x.shape
    x = x.view(height, width, channels // 4, 2, 2).permute(0, 3, 1, 4, 2)
    return x.reshape(2 * height, 2 * width, channels // 4)


def scale_level(log_scale: Tensor) -> Tensor:
    """The nearest of the 128 scale levels, uint8, of float64 log standard deviations; the same everywhere."""
    level = torch.round((log_scale - _LOG_SCALE_MIN) * _LEVELS_PER_UNIT)
    return level.clamp_(0, SCALE_LEVELS - 1).to(torch.uint8)


def asinh(x: Tensor) -> Tensor:
    """sign(x) ln(|x| + sqrt(x² + 1)) of float64, from correctly rounded operations only; error below 1e-15."""
    magnitude = x.abs()
    mantissa, exponent = torch.frexp(magnitude + torch.sqrt(magnitude * magnitude + 1.0))
    # mantissa in [0.5, 1): ln m = 2 artanh((m - 1) / (m + 1)), by its series; s² is at most 1/9.
    s = (mantissa - 1.0) / (mantissa + 1.0)
    square = s * s
    series = torch.full_like(s, 1 / 35)
    for k in range(33, 0, -2):
        series = series * square
        series = series + 1 / k
    logarithm = series * s
    logarithm = logarithm + logarithm
    return torch.copysign(logarithm + exponent.to(x.dtype) * _LN2, x)
