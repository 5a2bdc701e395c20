"""What the encoder's feedback brings: ``python -m benchmarks.feedback PHOTOGRAPHS [--model aicr-t]``.

By how many percent bpp + lambda * MSE differs from that without feedback, for some strengths of Gaussian noise and
qualities: with the shares that the model gives, and with shares that are the same throughout. Geometric mean over the
photographs that training keeps out, in the float network.
"""

from __future__ import annotations

import argparse
import copy
import math
from collections.abc import Mapping, Sequence
from functools import partial

import torch

from aicr_ext.model.aicr import AICR
from aicr_ext.model.feedback import Feedback
from benchmarks.held_out import Losses, log_losses, print_changes

__all__ = ["main", "shared"]

SHARES = (0.3, 0.6, 1.0)


@torch.no_grad()
def shared(model: AICR, share: float) -> AICR:
    """A copy that adds this share of everything that is wrong; 0 is a copy without feedback."""
    model = copy.deepcopy(model)
    if not share:
        model.analysis.feedback = None
        return model
    for module in model.analysis.modules():
        if isinstance(module, Feedback):
            module.head.weight.zero_()
            module.head.bias.fill_(math.log(share / (2 - share)))
            module.slope.zero_()
    return model


def _losses_of(model: AICR, _sigma: int) -> tuple[Losses, Mapping[str, Losses]]:
    variants = {"learned": model} | {f"{share:g} of it": shared(model, share) for share in SHARES}
    return partial(log_losses, shared(model, 0)), {name: partial(log_losses, v) for name, v in variants.items()}


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser("python -m benchmarks.feedback", description="feedback of the encoder")
    print_changes(parser, argv, _losses_of)


if __name__ == "__main__":
    main()
