"""Between latent tensors and bytes: quantisation in two steps, and the symbols' way through the coder.

Encoder and decoder obtain table index and mean of every symbol from the same integer functions of the same integers.
All is done for B pictures of one size, on the device of the latents; ``docs/cuda.md`` says where a host waits for it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from aicr_ext.codec.priors import IntegerPriors
from aicr_ext.codec.rans import TableSet
from aicr_ext.codec.streams import StreamsDecoder, encode_streams
from aicr_ext.codec.tables import gaussian_tables
from aicr_ext.model.aicr import AICR
from aicr_ext.ops.latent import latent_accept, latent_dequantise, latent_quantise, latent_scale_index

__all__ = ["Steps", "decode_latents", "encode_latents", "of_each"]

#: Symbols are int16.
_LIMIT = 32767


class Steps:
    """The two coding steps of latents, as encoder and decoder both take them (:mod:`aicr_ext.ops.latent`)."""

    def __init__(self, priors: IntegerPriors, z: Tensor, height: int, width: int) -> None:
        self._priors = priors
        self._parameters = priors.first(z, height, width)
        self._quant_step = self._parameters if priors.config.quant_step else None
        self._values: Tensor | None = None

    def index(self) -> Tensor:
        """Table of each symbol of the current step, in coding order (picture, row, column, channel)."""
        return latent_scale_index(self._parameters, self._priors.config.latent, self._values is not None)

    def quantise(self, y: Tensor) -> tuple[Tensor, Tensor]:
        """Symbols of the current step of y (B, N, h, w), and :meth:`index`."""
        y = y.permute(0, 2, 3, 1).float()
        exponent, second = self._priors.mean_exponent, self._values is not None
        return latent_quantise(y, self._parameters, exponent, self._quant_step, second, self._priors.zones)

    def open_second(self, symbols: Tensor) -> None:
        """Takes the symbols of the first step in, and goes on to the second one."""
        self._values = latent_accept(symbols, self._parameters, self._priors.mean_exponent)
        self._parameters = self._priors.second(self._values, self._parameters)

    def latent(self, symbols: Tensor) -> Tensor:
        """The decoded y, (B, N, h, w) float32, with the symbols of the second step."""
        exponent = self._priors.mean_exponent
        values = latent_accept(symbols, self._parameters, exponent, self._values)
        return latent_dequantise(values, exponent, self._quant_step).permute(0, 3, 1, 2)


def _hyper_index(shape: torch.Size | tuple[int, ...], device: torch.device) -> Tensor:
    """The table of each z symbol: its channel."""
    pictures, channels, height, width = shape
    index = torch.arange(channels, dtype=torch.uint8, device=device)
    return index[:, None].expand(pictures, -1, height * width).flatten()


def of_each(function: Callable[..., Tensor], *inputs: Tensor) -> Tensor:
    """``function`` of a batch; on a CPU of each picture, for there its last bits depend on how many there are."""
    if inputs[0].device.type != "cpu" or len(inputs[0]) == 1:
        return function(*inputs)
    return torch.cat([function(*one) for one in zip(*(x.split(1) for x in inputs), strict=True)])


def encode_latents(
    model: AICR, priors: IntegerPriors, hyper_tables: TableSet, y: Tensor, streams: int | None = None
) -> list[list[bytes]]:
    """Coded streams of each latent of y (B, N, h, w): so many, or as many as its size asks for."""
    z = torch.round(of_each(model.hyper_analysis, y)).clamp(-_LIMIT, _LIMIT)
    segments = [(z.flatten().to(torch.int16), _hyper_index(z.shape, z.device), hyper_tables)]
    steps = Steps(priors, z, *y.shape[2:])
    symbols, index = steps.quantise(y)
    segments.append((symbols, index, gaussian_tables()))
    steps.open_second(symbols)
    segments.append((*steps.quantise(y), gaussian_tables()))
    return encode_streams(segments, len(y), streams)


def decode_latents(
    priors: IntegerPriors,
    hyper_tables: TableSet,
    pictures: Sequence[Sequence[bytes | memoryview]],
    height: int,
    width: int,
    device: torch.device,
    names: Sequence[str] | None = None,
) -> tuple[Tensor, Callable[[], None]]:
    """Decoded latents (B, N, height, width) of :func:`encode_latents`' streams, on ``device``.

    Returns:
        the latents, and a function that raises what is wrong with the streams. On CUDA errors are raised by nothing
        else, and it waits for decoding, so call it when all that needs the latents is queued.

    Args:
        names: of the pictures, for messages.

    Raises:
        BitstreamError: the bytes are damaged.
    """
    shape = (len(pictures), priors.config.hyper, -(-height // 4), -(-width // 4))
    of_step = height * width * priors.config.latent // 2
    sizes = [shape[1] * shape[2] * shape[3], of_step, of_step]
    decoder = StreamsDecoder(pictures, sizes, device, names)
    z = decoder.pop(_hyper_index(shape, device), hyper_tables)
    steps = Steps(priors, z.to(device).view(shape), height, width)
    steps.open_second(decoder.pop(steps.index(), gaussian_tables()).to(device))
    y = steps.latent(decoder.pop(steps.index(), gaussian_tables()).to(device))
    decoder.finish()
    return y, decoder.check
