"""What the encoder's search brings: ``python -m benchmarks.search PHOTOGRAPHS [--model aicr-t]``.

By how many percent bpp + lambda * MSE of files differs from that without a search, for some strengths of Gaussian noise
and qualities. Geometric mean over the photographs that training keeps out.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from aicr_ext.codec.codec import Codec
from aicr_ext.model.aicr import AICR
from aicr_ext.model.scale import lambda_of
from benchmarks.held_out import Losses, print_changes

__all__ = ["main"]

EFFORTS = (3, 10, 30)


def _losses_of(model: AICR, _sigma: int) -> tuple[Losses, Mapping[str, Losses]]:
    codec = Codec(model)

    def of_files(effort: int) -> Losses:
        def losses(source: Tensor, target: Tensor, quality: int) -> Tensor:
            files = codec.compress(source, quality=quality, effort=effort)
            bpp = torch.tensor([8 * len(file) for file in files]) / source[0, 0].numel()
            mse = (torch.stack(codec.decompress(files)) - target).square().mean((1, 2, 3))
            return (bpp + 3 * lambda_of(torch.tensor(quality), model.config.lambdas) * mse).log()

        return losses

    return of_files(0), {f"effort {effort}": of_files(effort) for effort in EFFORTS}


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser("python -m benchmarks.search", description="search of the encoder")
    print_changes(parser, argv, _losses_of)


if __name__ == "__main__":
    main()
