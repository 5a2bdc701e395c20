"""Side-by-side pictures: what the codecs make of the same place at about the same rate."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from aicr_ext.images import write_image
from aicr_ext.panels import fitting_font, stacked

from .cascade import Cascade
from .datasets import DataSet, Sample
from .metrics import psnr
from .run import FILE
from .store import Row

__all__ = ["Crop", "busiest", "nearest_rate", "sheet"]

_GAP, _LINE = 6, 18


@dataclass(frozen=True)
class Crop:
    """A square place in a picture, in pixels; one that reaches over the border is moved or made smaller."""

    left: int
    top: int
    side: int

    def box(self, picture: np.ndarray) -> tuple[int, int, int, int]:
        """Left, top, right and bottom within ``picture`` (H, W, 3)."""
        height, width = picture.shape[:2]
        wide, high = min(self.side, width), min(self.side, height)
        left, top = min(self.left, width - wide), min(self.top, height - high)
        return left, top, left + wide, top + high


def sheet(
    data: DataSet,
    codecs: Sequence[Cascade],
    rows: Sequence[Row],
    path: Path,
    *,
    names: Sequence[str] = (),
    bpp: float | None = None,
    crop: Crop | None = None,
    side: int = 256,
) -> None:
    """One line for each picture: the whole input with a frame, then that crop of input, target and all codecs.

    Under each crop are the codec, the rate and the PSNR of the whole picture.

    Args:
        data, codecs, rows: what was measured.
        path: of the sheet; the suffix chooses the format.
        names: pictures to show; default the first three.
        bpp: rate that each codec should come near; default that of the first codec at the middle of its qualities.
        crop: the place; default the :func:`busiest` of ``side`` pixels, for each picture.

    Raises:
        ValueError: a name that is not in the data set.
    """
    for name in names:
        if name not in data.names:
            raise ValueError(f"{data.label}: no picture {name!r}; there are {', '.join(data.names)}")
    lines = []
    for sample in map(data.read, names or data.names[:3]):
        here = [
            row
            for row in rows
            if (row["dataset"], row["degradation"], row["picture"]) == (data.name, data.degradation, sample.name)
            and row["convention"] == FILE
        ]
        lines.append(_line(sample, codecs, here, bpp, crop or busiest(sample, side)))
    write_image(path, stacked(lines))


def nearest_rate(rows: Sequence[Row], codec: str, bpp: float) -> Row:
    """The row of a codec whose rate is nearest to ``bpp`` as a ratio."""
    return min((row for row in rows if row["codec"] == codec), key=lambda row: abs(math.log(row["bpp"] / bpp)))


def busiest(sample: Sample, side: int) -> Crop:
    """The place of ``side`` pixels with the most detail in the target (or input), on a grid of quarters of it."""
    picture = sample.input if sample.target is None else sample.target
    grey = picture.astype(np.float64).mean(2)
    height, width = grey.shape
    detail = np.zeros_like(grey)
    detail[:, 1:] += np.abs(np.diff(grey, axis=1))
    detail[1:] += np.abs(np.diff(grey, axis=0))
    step = max(1, side // 4)
    places = [
        Crop(left, top, side)
        for top in range(0, max(1, height - side + 1), step)
        for left in range(0, max(1, width - side + 1), step)
    ]
    return max(places, key=lambda place: detail[place.top : place.top + side, place.left : place.left + side].sum())


def _line(sample: Sample, codecs: Sequence[Cascade], rows: Sequence[Row], bpp: float | None, crop: Crop) -> Image.Image:
    if bpp is None:
        first = [row["bpp"] for row in rows if row["codec"] == codecs[0].name]
        bpp = sorted(first)[len(first) // 2]
    box = crop.box(sample.input)
    panels = [(_overview(sample.input, box), [sample.name])]
    panels.append((_cut(sample.input, box), ["input", *_decibel(sample, sample.input)]))
    if sample.damaged:
        panels.append((_cut(sample.target, box), ["target"]))
    for codec in codecs:
        row = nearest_rate(rows, codec.name, bpp)
        decoded = codec.decode(codec.encode(sample.input, row["quality"]))
        facts = [f"{row['bpp']:.3f} bpp", *_decibel(sample, decoded)]
        panels.append((_cut(decoded, box), [f"{codec.name}, quality {row['quality']:g}", ", ".join(facts)]))
    height = max(image.height for image, _ in panels) + 2 * _LINE + _GAP
    line = Image.new("RGB", (sum(image.width + _GAP for image, _ in panels) - _GAP, height), "white")
    draw = ImageDraw.Draw(line)
    left = 0
    for image, texts in panels:
        line.paste(image, (left, 0))
        for number, text in enumerate(texts):
            middle = (left + image.width / 2, image.height + (number + 0.5) * _LINE)
            font = fitting_font(draw, text, image.width, largest=14, smallest=7)
            draw.text(middle, text, "black", font, anchor="mm")
        left += image.width + _GAP
    return line


def _overview(picture: np.ndarray, box: tuple[int, int, int, int]) -> Image.Image:
    """The whole picture, reduced to the height of the crop, with the crop's frame."""
    left, top, right, bottom = box
    scale = (bottom - top) / picture.shape[0]
    image = Image.fromarray(picture)
    image = image.resize((max(1, round(image.width * scale)), bottom - top), Image.Resampling.LANCZOS)
    frame = [round(v * scale) for v in (left, top, right - 1, bottom - 1)]
    ImageDraw.Draw(image).rectangle(frame, outline="red", width=2)
    return image


def _cut(picture: np.ndarray, box: tuple[int, int, int, int]) -> Image.Image:
    return Image.fromarray(picture).crop(box)


def _decibel(sample: Sample, picture: np.ndarray) -> list[str]:
    """PSNR as text, where there is something to compare with."""
    if sample.target is None or (picture is sample.input and not sample.damaged):
        return []
    return [f"{psnr(picture, sample.target):.2f} dB"]
