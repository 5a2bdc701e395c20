"""What the encoder's Wiener filter brings: ``python -m benchmarks.wiener_filter PHOTOGRAPHS [--model aicr-t]``.

By how many percent bpp + lambda * MSE differs from that without the filter, for some strengths of Gaussian noise and
qualities: with the noise that the analysis tells, and with the true one, some factors times its variance. Geometric
mean over the photographs that training keeps out, in the float network.
"""

from __future__ import annotations

import argparse
import copy
import math
from collections.abc import Mapping, Sequence
from functools import partial

import torch

from aicr_ext.model.aicr import AICR
from benchmarks.held_out import Losses, log_losses, print_changes

__all__ = ["main", "told"]

#: Times the true variance.
FACTORS = (0.5, 1.0, 2.0)


@torch.no_grad()
def told(model: AICR, deviation: float) -> AICR:
    """A copy whose gates tell that noise of this standard deviation, in pictures from 0 to 1, is before them."""
    model = copy.deepcopy(model)
    for gate in (model.analysis.gate, model.analysis.detail.gate):
        gate.noise.weight.zero_()
        gate.noise.bias.fill_(math.log(max(deviation, 1e-8)))
    return model


def _losses_of(model: AICR, sigma: int) -> tuple[Losses, Mapping[str, Losses]]:
    variants = {"told": model}
    variants |= {f"true, {f:g} n^2": told(model, math.sqrt(f) * sigma / 255) for f in FACTORS}
    return partial(log_losses, told(model, 0)), {name: partial(log_losses, v) for name, v in variants.items()}


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser("python -m benchmarks.wiener_filter", description="the encoder's Wiener filter")
    print_changes(parser, argv, _losses_of)


if __name__ == "__main__":
    main()
