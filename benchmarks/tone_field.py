"""What tone fields make of each kind of damage: ``python -m benchmarks.tone_field PHOTOGRAPHS WEIGHTS [WEIGHTS ...]``.

PSNR of the means over 16 x 16 pixels against those of the clean picture, before the tone field and after those of
the weights (names or files), on crops of the photographs that training keeps out when ``validation`` is COUNT:
mean, and the tenth part of the pictures that it is least good for. A clean picture should stay as it is.
"""

from __future__ import annotations

import argparse

import torch
import torch.nn.functional as F
from torch import Tensor

from aicr_ext.codec.checkpoint import load_model
from aicr_ext.train.data import Batches, load_images
from aicr_ext.train.mixture import Mixture
from aicr_ext.train.validation import split

from .timing import print_table

KINDS = ("none", "haze", "rain", "snow", "low_light", "gaussian_noise", "raw_noise", "jpeg")
SIDE = 256


def psnr_of_means(picture: Tensor, target: Tensor) -> Tensor:
    """(B,) dB, at most 70."""
    difference = F.avg_pool2d(picture, 16) - F.avg_pool2d(target, 16)
    return -10 * torch.log10(difference.square().mean((1, 2, 3)) + 1e-7)


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("photographs")
    parser.add_argument("weights", nargs="+")
    parser.add_argument("--count", type=int, default=16)
    parser.add_argument("--seed", type=int, default=7)
    args = parser.parse_args()
    held_out = split(load_images(args.photographs, SIDE), args.count)[1]
    fields = {name: load_model(name).analysis.tone for name in args.weights}
    rows = []
    for kind in KINDS:
        mixture = Mixture() if kind == "none" else Mixture(clean=0.0, alone=1.0, kinds={kind: 1.0})
        batch = Batches(held_out, args.seed, mixture).make(0, range(len(held_out)), SIDE)
        row: dict[str, object] = {"kind": kind, "input": float(psnr_of_means(batch.source, batch.target).mean())}
        for name, field in fields.items():
            values = psnr_of_means(field(batch.source), batch.target)
            row[name] = float(values.mean())
            row[f"{name}, lowest tenth"] = float(values.quantile(0.1))
        rows.append(row)
    print_table(rows)


if __name__ == "__main__":
    main()
