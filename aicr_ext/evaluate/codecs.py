"""Codecs to measure: ours, and those of Pillow."""

from __future__ import annotations

import copy
import io
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np
import PIL
import torch
from PIL import Image, features

import aicr_ext
from aicr_ext.codec import container
from aicr_ext.codec.codec import check_effort
from aicr_ext.model.entropy import PRICE

from .text import check_options

__all__ = ["PILLOW", "QUALITIES", "FileCodec", "ModelCodec", "PillowCodec"]

#: Qualities of our codec: eight, evenly spaced over 0 to 63.
QUALITIES = tuple(int(q) for q in np.linspace(0, 63, 8).round())


@runtime_checkable
class FileCodec(Protocol):
    """What a codec has to have to be measured; a plug-in needs no parent class.

    Attributes:
        qualities: settings to measure, in any order; each is an argument of ``encode``.
        identity: everything that decides about the bytes: software, version, settings, weights. What was measured
            under one identity is not measured again. A plug-in may leave it out; its source file then stands for it.
    """

    qualities: Sequence[float]

    def encode(self, picture: np.ndarray, quality: float) -> bytes:
        """The whole file of a picture (H, W, 3) uint8."""

    def decode(self, data: bytes) -> np.ndarray:
        """The picture (H, W, 3) uint8 of a file."""


class ModelCodec:
    """Our codec: a shipped model's name or a weight file, on a device, in a precision.

    Attributes:
        effort: of :func:`aicr_ext.compress`; 0, or that of :meth:`with_effort`.
    """

    def __init__(
        self,
        model: str | Path = "aicr-t",
        *,
        name: str | None = None,
        device: str | torch.device | None = None,
        precision: str = "float32",
    ) -> None:
        self.codec = aicr_ext.Codec(model, device, precision=precision)
        self.name = name or Path(model).stem
        self.qualities: Sequence[int] = QUALITIES
        self.weight_hash = self.codec.weight_hash.hex()
        weights = f"weights {self.weight_hash[:16]}"
        self.identity = f"{self.codec.name}, {weights}, format {container.VERSION}, dead zone {PRICE:g}"
        if self.codec.precision != "float32":
            self.identity += f", {self.codec.precision}"
        self.effort = 0

    def with_effort(self, effort: int) -> ModelCodec:
        """The same codec with a search of so many steps in its encoder."""
        other = copy.copy(self)
        other.effort = check_effort(effort)
        if effort:
            other.identity += f", effort {effort}"
        return other

    def encode(self, picture: np.ndarray, quality: int) -> bytes:
        return self.codec.compress(picture, quality=quality, effort=self.effort)

    def decode(self, data: bytes) -> np.ndarray:
        decoded = self.codec.decompress(data)
        return decoded.mul(255).round().byte().permute(1, 2, 0).contiguous().cpu().numpy()

    def relaxed(self, picture: np.ndarray, quality: int) -> tuple[float, np.ndarray]:
        """Bits that the entropy model expects, and the picture that the network makes, neither clamped nor rounded.

        ``picture`` is (H, W, 3) float32, of any range; so is the result. Nothing is coded, and nothing searched.
        """
        bits, decoded = self.codec.relaxed(torch.from_numpy(picture).permute(2, 0, 1), quality)
        return bits, decoded.permute(1, 2, 0).float().cpu().numpy()


class _Setup(NamedTuple):
    format: str
    qualities: tuple[int, ...]
    options: dict[str, object]
    accepted: tuple[str, ...]
    library: str


#: Pillow's codecs: format, qualities, settings, settings that may be changed, and the library's name in Pillow.
PILLOW = {
    "jpeg": _Setup(
        "JPEG",
        (5, 10, 20, 30, 40, 50, 60, 70, 80, 90),
        {"optimize": True, "subsampling": "4:2:0"},
        ("optimize", "progressive", "subsampling"),
        "libjpeg_turbo",
    ),
    "webp": _Setup("WEBP", (1, 10, 25, 40, 55, 70, 80, 90), {"method": 6}, ("method", "exact"), "webp"),
    "avif": _Setup(
        "AVIF",
        (1, 10, 20, 30, 40, 50, 60, 70, 80),
        {"speed": 6, "subsampling": "4:2:0"},
        ("speed", "subsampling"),
        "avif",
    ),
}


class PillowCodec:
    """JPEG, WebP or AVIF through Pillow: ``PillowCodec("avif", speed=4)``; settings are in :data:`PILLOW`."""

    def __init__(self, name: str, **options: object) -> None:
        if name not in PILLOW:
            raise ValueError(f"codec {name!r}: expected one of {', '.join(PILLOW)}")
        setup = PILLOW[name]
        check_options(options, setup.accepted)
        self.name = name
        self.qualities: Sequence[int] = setup.qualities
        self._format = setup.format
        self._options = setup.options | options
        library = f"{setup.library} {features.version(setup.library)}"
        settings = ", ".join(f"{key}={value}" for key, value in self._options.items())
        self.identity = f"{setup.format}, {library}, Pillow {PIL.__version__}, {settings}"

    def encode(self, picture: np.ndarray, quality: int) -> bytes:
        file = io.BytesIO()
        Image.fromarray(picture).save(file, self._format, quality=quality, **self._options)
        return file.getvalue()

    def decode(self, data: bytes) -> np.ndarray:
        return np.array(Image.open(io.BytesIO(data), formats=[self._format]).convert("RGB"))
