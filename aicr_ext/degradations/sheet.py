"""``python -m aicr_ext.degradations.sheet IN OUT``: one photograph under every kind of degradation, as one JPEG."""

from __future__ import annotations

import argparse
import io
import sys
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from aicr_ext.errors import AicrError
from aicr_ext.files import atomic_write
from aicr_ext.images import read_image
from aicr_ext.panels import side_by_side, stacked

from .base import Degradation
from .blur import Defocus, MotionBlur
from .haze import Haze
from .jpeg import Jpeg
from .low_light import LowLight
from .noise import GaussianNoise, RawNoise
from .rain import Rain
from .snow import Snow

__all__ = ["PANELS", "contact_sheet", "main"]

_COLUMNS = 4
_PANEL_WIDTH = 320

#: Label and what is applied, one after the other.
PANELS: tuple[tuple[str, tuple[Degradation, ...]], ...] = (
    ("clean", ()),
    ("haze", (Haze(beta=1.6, near=0.1),)),
    ("rain, light", (Rain(amount=0.1, length=22, width=1.2, opacity=0.6),)),
    ("rain, heavy, with a veil", (Rain(amount=0.6, length=40, width=1.6, angle=15, opacity=0.7, veil=0.5),)),
    ("snow", (Snow(amount=0.12, size=9, motion=3, veil=0.3),)),
    ("low light", (LowLight(exposure=0.08),)),
    ("motion blur", (MotionBlur(length=12, angle=30, shake=60),)),
    ("defocus", (Defocus(3.0),)),
    ("Gaussian noise, sigma 25", (GaussianNoise(25 / 255),)),
    ("raw noise, gain 4", (RawNoise.for_gain(4),)),
    ("JPEG, quality 10", (Jpeg(10),)),
    (
        "haze, snow, low light",
        (Haze(beta=0.8), Snow(amount=0.12, size=8, motion=5, angle=-25), LowLight(exposure=0.25)),
    ),
)


def contact_sheet(photo: Image.Image, seed: int = 0) -> Image.Image:
    """All :data:`PANELS` of an RGB photograph, which is reduced to their width first, with labels."""
    size = (_PANEL_WIDTH, max(1, round(photo.height * _PANEL_WIDTH / photo.width)))
    small = np.array(photo.resize(size, Image.Resampling.LANCZOS))
    clean = torch.from_numpy(small).permute(2, 0, 1).float().div(255)
    panels = []
    for label, steps in PANELS:
        generator, image = torch.Generator().manual_seed(seed), clean
        for step in steps:
            image = step(image, generator)
        samples = image.mul(255).round().to(torch.uint8).permute(1, 2, 0).contiguous().numpy()
        panels.append((Image.fromarray(samples), label))
    return stacked([side_by_side(panels[start : start + _COLUMNS]) for start in range(0, len(panels), _COLUMNS)])


def main(argv: list[str] | None = None) -> int:
    """Command line of the sheet; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m aicr_ext.degradations.sheet", description=__doc__)
    parser.add_argument("image", type=Path, help="photograph to degrade")
    parser.add_argument("out", type=Path, help="JPEG file to write")
    parser.add_argument("--seed", type=int, default=0, help="where rain and noise fall (default: 0)")
    parser.add_argument("--quality", type=int, default=80, help="of the JPEG file (default: 80)")
    args = parser.parse_args(argv)
    try:
        file = io.BytesIO()
        contact_sheet(read_image(args.image), args.seed).save(file, "JPEG", quality=args.quality, optimize=True)
        atomic_write(args.out, file.getvalue())
    except (AicrError, OSError) as error:
        print(f"sheet: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
