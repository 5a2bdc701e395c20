"""Between latent tensors and bytes: quantisation in steps, and the symbols' way through the coder.

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
    """The coding steps of latents, as encoder and decoder both take them (:mod:`aicr_ext.ops.latent`).

    Two of y, and where the model has detail, two of that. Each of ``count`` steps is :meth:`quantise`, or for a decoder
    :meth:`index`, and then :meth:`accept`. After the last one there are :meth:`latents`.
    """

    def __init__(self, priors: IntegerPriors, z: Tensor, height: int, width: int) -> None:
        self._priors = priors
        self.count = 4 if priors.config.detail else 2
        self._step = 0
        self._first = self._parameters = priors.first(z, height, width)
        self._quant_step = self._parameters if priors.config.quant_step else None
        self._exponent = priors.mean_exponent
        self._values: Tensor | None = None
        self._decoded: list[Tensor] = []

    @property
    def _second(self) -> bool:
        return self._step % 2 == 1

    def index(self) -> Tensor:
        """Table of each symbol of the current step, in coding order (picture, row, column, channel)."""
        return latent_scale_index(self._parameters, len(self._exponent), self._second)

    def quantise(self, latents: Tensor) -> tuple[Tensor, Tensor]:
        """Symbols of the current step of what the analysis gives (B, N + E or more, h, w), and :meth:`index`."""
        config = self._priors.config
        first = config.latent if self._step >= 2 else 0
        own = self._channels(latents, first)
        zones, noise = self._priors.zones, None
        if config.wiener_filter:
            noise = self._channels(latents, config.components + first)
        variances = None if noise is None else self._priors.variances
        return latent_quantise(
            own, self._parameters, self._exponent, self._quant_step, self._second, zones, noise, variances
        )

    def _channels(self, latents: Tensor, first: int) -> Tensor:
        """(B, h, w, C) of the current step, from this channel on."""
        return latents[:, first : first + len(self._exponent)].permute(0, 2, 3, 1).float()

    def accept(self, symbols: Tensor) -> None:
        """Takes the symbols of the current step in, and goes on to the next one."""
        self._values = latent_accept(symbols, self._parameters, self._exponent, self._values)
        self._step += 1
        if self._step == 1:
            self._parameters = self._priors.second(self._values, self._first)
        elif not self._second:
            decoded = latent_dequantise(self._values, self._exponent, self._quant_step)
            self._decoded.append(decoded.permute(0, 3, 1, 2))
            if self._step < self.count:
                self._open_detail()

    def _open_detail(self) -> None:
        scales = self._priors.detail(self._first, self._parameters)
        self._parameters = torch.cat([scales, torch.zeros_like(scales)], 3)  # no means
        self._exponent = torch.zeros(scales.shape[3], dtype=torch.int32, device=scales.device)
        self._quant_step = self._values = None

    def latents(self) -> Tensor:
        """The decoded latents, (B, N + E, h, w) float32, after the last step."""
        return self._decoded[0] if len(self._decoded) == 1 else torch.cat(self._decoded, 1)


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
    model: AICR,
    priors: IntegerPriors,
    hyper_tables: TableSet,
    latents: Tensor,
    streams: int | None = None,
    z: Tensor | None = None,
) -> list[list[bytes]]:
    """Coded streams of what the analysis gives of each picture (B, N + E or more, h, w): so many, or as many as
    their size asks for.

    Args:
        z: with which they are coded, whole numbers; by default those of the hyper analysis.
    """
    if z is None:
        y, _ = model.y_and_detail(latents)
        z = torch.round(of_each(model.hyper_analysis, y))
    z = z.clamp(-_LIMIT, _LIMIT)
    segments = [(z.flatten().to(torch.int16), _hyper_index(z.shape, z.device), hyper_tables)]
    steps = Steps(priors, z, *latents.shape[2:])
    for step in range(steps.count):
        symbols, index = steps.quantise(latents)
        segments.append((symbols, index, gaussian_tables()))
        if step + 1 < steps.count:
            steps.accept(symbols)
    return encode_streams(segments, len(latents), streams)


def decode_latents(
    priors: IntegerPriors,
    hyper_tables: TableSet,
    pictures: Sequence[Sequence[bytes | memoryview]],
    height: int,
    width: int,
    device: torch.device,
    names: Sequence[str] | None = None,
) -> tuple[Tensor, Callable[[], None]]:
    """Decoded latents (B, N + E, height, width) of :func:`encode_latents`' streams, on ``device``.

    Returns:
        the latents, and a function that raises what is wrong with the streams. On CUDA errors are raised by nothing
        else, and it waits for decoding, so call it when all that needs the latents is queued.

    Args:
        names: of the pictures, for messages.

    Raises:
        BitstreamError: the bytes are damaged.
    """
    shape = (len(pictures), priors.config.hyper, -(-height // 4), -(-width // 4))
    of_step = [height * width * channels // 2 for channels in (priors.config.latent, priors.config.detail) if channels]
    sizes = [shape[1] * shape[2] * shape[3], *(size for size in of_step for _ in range(2))]
    decoder = StreamsDecoder(pictures, sizes, device, names)
    z = decoder.pop(_hyper_index(shape, device), hyper_tables)
    steps = Steps(priors, z.to(device).view(shape), height, width)
    for _ in range(steps.count):
        steps.accept(decoder.pop(steps.index(), gaussian_tables()).to(device))
    decoder.finish()
    return steps.latents(), decoder.check
