"""What dead zones of the quantiser bring: ``python -m benchmarks.dead_zone PHOTOGRAPHS [--model aicr-t]``.

By how many percent bpp + lambda * MSE differs from that with plain rounding, for some prices (``PRICE`` in
``aicr_ext/model/entropy.py``; the lower, the wider), qualities and inputs: geometric mean over the photographs that
training keeps out, in the float network.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Mapping, Sequence
from functools import partial
from unittest import mock

from torch import Tensor

from aicr_ext.model import entropy
from aicr_ext.model.aicr import AICR
from benchmarks.held_out import Losses, log_losses, print_changes

PRICES = (60.0, 40.0, 30.0, 20.0)


def losses_at(price: float, model: AICR, source: Tensor, target: Tensor, quality: int) -> Tensor:
    """As :func:`log_losses`, with the dead zone of this price."""
    with mock.patch.object(entropy, "PRICE", price):
        return log_losses(model, source, target, quality)


def _losses_of(model: AICR, _sigma: int) -> tuple[Losses, Mapping[str, Losses]]:
    return partial(losses_at, math.inf, model), {f"price {p:g}": partial(losses_at, p, model) for p in PRICES}


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser("python -m benchmarks.dead_zone", description="dead zones of the quantiser")
    print_changes(parser, argv, _losses_of)


if __name__ == "__main__":
    main()
