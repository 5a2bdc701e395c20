"""Shapes, layouts and arguments for the tests of decoupled_attention and of its derivative."""

from __future__ import annotations

import torch
from op_cases import LAYOUTS, requires_ops
from seeds import SEED

__all__ = ["LAYOUTS", "SHAPES", "arguments", "requires_ops"]

# Rows and columns beyond one block and strip, sizes that divide nothing, single rows and columns, one
# channel, channels that fill no whole number of vectors.
SHAPES = [
    (1, 1, 1, 1),
    (1, 3, 1, 9),
    (3, 5, 9, 1),
    (2, 1, 33, 17),
    (3, 7, 37, 21),
    (1, 16, 65, 70),
    (1, 40, 34, 400),
    (2, 64, 16, 24),
    (1, 80, 20, 160),
]


def arguments(shape, taps=5, dtype=torch.float32, device="cpu", layout="nchw", seed=0, weight_dtype=None):
    generator = torch.Generator().manual_seed(SEED + seed)
    c = shape[1]

    def draw(*size, dtype):
        return torch.randn(*size, generator=generator).to(device, dtype)

    maps = [draw(*shape, dtype=dtype).to(memory_format=LAYOUTS[layout]) for _ in range(2)]
    weights = [draw(c, 1, *size, dtype=weight_dtype or dtype) for size in ((1, taps), (taps, 1))]
    return (*maps, *weights)
