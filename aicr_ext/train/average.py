"""``python -m aicr_ext.train.average START RESULT PHOTOGRAPHS``: means of the weights that a run began and ended with.

Between the two, weights are often better than at either end, because what a run gains for some pictures it loses for
others. ``--compare 0 0.5 0.8 1`` tries shares of the result on photographs kept out of training; ``--share 0.8 --out
FILE`` writes a weight file.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from aicr_ext.codec.checkpoint import export_weights, load_model
from aicr_ext.model.aicr import AICR
from aicr_ext.model.scale import lambda_of
from aicr_ext.train.data import load_images
from aicr_ext.train.losses import rate_distortion_loss
from aicr_ext.train.options import TrainingOptions
from aicr_ext.train.start import fits
from aicr_ext.train.validation import split, trials
from aicr_ext.weights import load_weights

__all__ = ["average", "compare"]

#: That every loss is a mean over.
QUALITIES = (5, 30, 58)
#: Standard deviations of Gaussian noise, of 255.
SIGMAS = (15, 25)
_MOST_PIXELS, _PICTURES = 512, 32  # of the crops that the ranges of the entropy networks are measured on


def average(start: str | Path, result: str | Path, share: float) -> AICR:
    """The network with (1 - share) times the parameters of ``start`` plus share times those of ``result``.

    Everything else is that of ``result``: parts that ``start`` lacks, ranges, tables.

    Raises:
        ValueError: ``share`` is not within 0 to 1, or the two are not of one network.
    """
    if not 0 <= share <= 1:
        raise ValueError(f"share must be from 0 to 1, got {share}")
    first, second = load_model(start), load_model(result)
    if not fits(second.config, first.config):
        raise ValueError(f"{start} is of {first.config.name}, {result} of {second.config.name}, or another shape of it")
    old = dict(first.named_parameters())
    with torch.no_grad():
        for name, mine in second.named_parameters():
            if name in old:
                mine.copy_((1 - share) * old[name] + share * mine)
    return second


def calibration_pictures(images: Sequence[Tensor]) -> list[Tensor]:
    """Some of the photographs (3, H, W) uint8, evenly spread, as batches of one crop each, in [0, 1]."""
    crops = [image[:, :_MOST_PIXELS, :_MOST_PIXELS] for image in images[:: -(-len(images) // _PICTURES)]]
    sides = [[side // 64 * 64 for side in crop.shape[1:]] for crop in crops]
    return [crop[None, :, :h, :w].float() / 255 for crop, (h, w) in zip(crops, sides, strict=True)]


@torch.no_grad()
def losses(model: AICR, source: Tensor, target: Tensor) -> Tensor:
    """Of each picture (B, 3, H, W), the mean over qualities of the logarithm of the rate-distortion loss: (B,)."""
    columns = []
    for value in QUALITIES:
        quality = torch.full((len(source),), value)
        with torch.autocast("cpu", torch.bfloat16):
            coded = model(source, quality)
        bpp, lam = coded.y_bpp + coded.z_bpp, lambda_of(quality, model.config.lambdas)
        parts = zip(*(t.split(1) for t in (bpp, coded.picture.float(), target, lam)), strict=True)
        columns.append(torch.stack([rate_distortion_loss(*part)[0] for part in parts]).log())
    return torch.stack(columns, 1).mean(1)


def _all_losses(model: AICR, sources: Mapping[str, Tensor], target: Tensor) -> dict[str, Tensor]:
    model = model.to(memory_format=torch.channels_last)
    return {name: losses(model, source, target) for name, source in sources.items()}


def photographs_of(options: TrainingOptions) -> list[Tensor]:
    """All that a run would read."""
    return load_images(options.data, minimum_side=max(side for _, _, side in options.stages))


def compare(
    start: str | Path, result: str | Path, shares: Sequence[float], options: TrainingOptions
) -> list[dict[str, float]]:
    """For each share, by how many percent the loss differs from that of ``start``.

    The photographs are those that a run with ``options`` keeps out: as they are, as its mixture makes them, and with
    Gaussian noise. Of every kind the mean over photographs and qualities (geometric, so that no photograph counts
    more because its loss is larger), and the median over photographs, which one of them cannot move.
    """
    found = trials(split(photographs_of(options), options.validation)[1], options.mixture)
    if "valid_clean" not in found:
        raise ValueError("validation must be at least 1 photograph to compare weights on")
    clean = found["valid_clean"].batch.target
    generator = torch.Generator().manual_seed(0)
    sources = {name.removeprefix("valid_"): trial.batch.source for name, trial in found.items()}
    for sigma in SIGMAS:
        noise = torch.randn(clean.shape, generator=generator)
        sources[f"noise {sigma}"] = (clean + sigma / 255 * noise).clamp(0, 1)
    before = _all_losses(load_model(start), sources, clean)
    rows = []
    for share in shares:
        after = _all_losses(average(start, result, share), sources, clean)
        row: dict[str, float] = {"share": share}
        for name, change in ((name, after[name] - before[name]) for name in sources):
            row[f"{name} %"] = 100 * math.expm1(float(change.mean()))
            row[f"{name}, median %"] = 100 * math.expm1(float(change.median()))
        rows.append(row)
    return rows


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("python -m aicr_ext.train.average", description=__doc__.split("\n\n")[1])
    parser.add_argument("start", help="weight file, or the name of a shipped model")
    parser.add_argument("result", help="likewise")
    parser.add_argument("photographs", help="those that the run was trained on")
    parser.add_argument("--compare", nargs="+", type=float, metavar="SHARE", help="of the result; a line for each")
    parser.add_argument("--config", default="aicr-t", help="of the run: its mixture, and how many it keeps out")
    parser.add_argument("--share", type=float, help="of the result, in the file of --out")
    parser.add_argument("--out", help="weight file to write")
    return parser


def _run(args: argparse.Namespace) -> None:
    if (args.share is None) != (args.out is None) or (args.out is None and args.compare is None):
        raise ValueError("name --compare SHARE ..., or --share and --out, or all three")
    options = TrainingOptions.from_config(args.photographs, "unused", args.config)
    if args.compare:
        for row in compare(args.start, args.result, args.compare, options):
            print("  ".join(f"{name} {value:+.2f}" for name, value in row.items()))
    if args.out:
        notes = load_weights(args.result)[2] if Path(args.result).exists() else {}
        pictures = calibration_pictures(photographs_of(options))
        export_weights(args.out, average(args.start, args.result, args.share), notes, pictures)


def main(argv: Sequence[str] | None = None) -> None:
    parser = _parser()
    try:
        _run(parser.parse_args(argv))
    except (ValueError, OSError) as error:
        parser.exit(1, f"{parser.prog}: error: {error}\n")


if __name__ == "__main__":
    main()
