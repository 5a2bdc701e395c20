"""Whether files cross devices: ``python -m benchmarks.cross_device [PICTURE ...] --device cuda``.

Pictures are compressed on the CPU and on the device, one at a time and several in a call, and every file is decoded on
both. The latents that the synthesis is given, which are the symbols, must be the same, bit for bit, wherever a file was
made and wherever it is decoded. Two things may differ and are only counted: the files that two devices make of one
picture, for the analysis is floating point, and, by rounding, the decoded pictures.

A picture is a file or a folder of them; without any, the sample photograph and small pictures of odd sides take part.
With ``--device cpu`` the CPU is compared with itself. Ends with status 1 if a latent differs.
"""

from __future__ import annotations

import argparse
import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

import aicr_ext
from aicr_ext.codec.checkpoint import shipped_models
from aicr_ext.images import read_image

from .entropy import SAMPLE
from .exactness import pictures_of
from .timing import circumstances, print_table, write_csv

#: Heights and widths of the pictures drawn: less than a cell of the latent, sides that divide nothing.
DRAWN = ((1, 1), (17, 40), (250, 333))
SAME = 3  # pictures of one size that share a call


class Place:
    """A codec on a device, and the latents that its synthesis was given."""

    def __init__(self, model: str, device: str, precision: str) -> None:
        self.codec = aicr_ext.Codec(model, device=device, precision=precision)
        self.digests: list[str] = []
        self.codec.networks["synthesis"].register_forward_pre_hook(self._remember)

    def _remember(self, module: nn.Module, arguments: tuple[Tensor, ...]) -> None:
        for latent in arguments[0].float().cpu():
            self.digests.append(hashlib.sha256(latent.contiguous().numpy().tobytes()).hexdigest())

    def compress(self, pictures: Tensor, quality: int) -> list[bytes]:
        """Files of pictures (B, 3, H, W) uint8, made in one call."""
        return self.codec.compress(pictures.to(self.codec.device), quality=quality)

    def decompress(self, files: list[bytes]) -> tuple[list[str], list[Tensor]]:
        """Digests of the latents, and the pictures on the CPU, of files decoded in one call."""
        self.digests.clear()
        pictures = [picture.float().cpu() for picture in self.codec.decompress(files)]
        return list(self.digests), pictures


def drawn(seed: int) -> list[Tensor]:
    """Batches of smooth pictures with some grain, (B, 3, H, W) uint8; another seed gives others."""
    generator = torch.Generator().manual_seed(seed)
    batches = []
    for height, width in DRAWN:
        coarse = torch.rand(SAME, 3, 4, 4, generator=generator)
        smooth = torch.nn.functional.interpolate(coarse, (height, width), mode="bicubic")
        grain = 0.03 * torch.randn(smooth.shape, generator=generator)
        batches.append((smooth + grain).clamp(0, 1).mul(255).round().byte())
    return batches


def compare(places: tuple[Place, Place], pictures: Tensor, quality: int) -> dict[str, object]:
    """Counts for one batch: files, those that differ between the places, latents that differ, largest difference."""
    made = [place.compress(pictures, quality) for place in places]
    made.append([file for one in pictures for file in places[1].compress(one[None], quality)])
    latents = 0
    difference = 0.0
    for files in made:
        (expected, exact), (found, other) = (place.decompress(files) for place in places)
        for file, digest in zip(files, expected, strict=True):  # by itself, whatever came with it above
            latents += places[1].decompress([file])[0] != [digest]
        if len(expected) != len(found):
            raise RuntimeError(f"{len(found)} latents of {len(expected)} files")
        latents += sum(a != b for a, b in zip(expected, found, strict=True))
        difference = max(difference, *(float((a - b).abs().max()) for a, b in zip(exact, other, strict=True)))
    return {
        "files": len(made[0]) + len(made[1]) + len(made[2]),
        "files that differ": sum(a != b for a, b in zip(made[0], made[1], strict=True)),
        "files that differ by batch": sum(a != b for a, b in zip(made[1], made[2], strict=True)),
        "latents that differ": latents,
        "largest difference of pictures": difference,
    }


def batches_of(paths: list[Path], seed: int) -> list[tuple[str, Tensor]]:
    """Names and batches (B, 3, H, W) uint8 of what takes part."""
    named = [(path.name, torch.from_numpy(np.array(read_image(path))).permute(2, 0, 1)[None]) for path in paths]
    return named + [("drawn", batch) for batch in drawn(seed)]


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser("python -m benchmarks.cross_device", description="whether files cross devices")
    parser.add_argument("pictures", nargs="*", type=Path, help="files and folders (default: the sample photograph)")
    parser.add_argument("--device", default="cuda", help="to compare with the CPU (default: %(default)s)")
    parser.add_argument("--models", nargs="+", default=shipped_models())
    parser.add_argument("--precision", nargs="+", default=["float32", "bfloat16"])
    parser.add_argument("--qualities", type=int, nargs="+", default=[0, 32, 63])
    parser.add_argument("--drawn-only", action="store_true", help="without photographs")
    parser.add_argument("--seed", type=int, default=0, help="of the pictures drawn (default: %(default)s)")
    parser.add_argument("--csv", help="also write the table to this file")
    options = parser.parse_args(argv)
    given = [] if options.drawn_only else options.pictures or [SAMPLE]
    paths = [path for one in given for path in pictures_of(one)]
    facts = circumstances(torch.device(options.device).type) | {"seed": options.seed}
    batches = batches_of(paths, options.seed)
    rows: list[dict[str, object]] = []
    for model in options.models:
        for precision in options.precision:
            places = (Place(model, "cpu", precision), Place(model, options.device, precision))
            for name, pictures in batches:
                size = "{3}x{2}".format(*pictures.shape)
                row: dict[str, object] = {"model": model, "precision": precision, "pictures": name, "size": size}
                for quality in options.qualities:
                    rows.append(row | {"quality": quality} | compare(places, pictures, quality))
                if options.csv:
                    write_csv(options.csv, [row | facts for row in rows])
    print_table(rows)
    wrong = sum(int(row["latents that differ"]) for row in rows)
    if wrong:
        raise SystemExit(f"{wrong} latents differ")


if __name__ == "__main__":
    main()
