"""Ragged batches of drawn streams, for the tests of the entropy coder's operators."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import torch
from coder_cases import draw, mixed_tables
from seeds import SEED

from aicr_ext.codec.tables import gaussian_tables
from aicr_ext.ops import rans
from aicr_ext.ops.rans import even_splits

SETS = (mixed_tables(), gaussian_tables())


class Batch:
    """Segments of drawn symbols, with splits."""

    def __init__(self, splits: list[list[int]], seed: int = 0, escapes: float = 0.02) -> None:
        rng = np.random.default_rng(SEED + seed)
        self.sets = [SETS[g % 2] for g in range(len(splits))]
        drawn = [draw(rng, tables, cuts[-1], escapes) for tables, cuts in zip(self.sets, splits, strict=True)]
        self.symbols, self.index = ([torch.from_numpy(part) for part in parts] for parts in zip(*drawn, strict=True))
        self.tables = [tables.tensor for tables in self.sets]
        self.splits = [torch.tensor(cuts) for cuts in splits]
        self.streams = len(splits[0]) - 1

    def encode(self, lanes: int = 0, ops=rans) -> tuple[torch.Tensor, torch.Tensor]:
        return ops.rans_encode(self.symbols, self.index, self.tables, self.splits, lanes)

    def decode(self, data: torch.Tensor, ends: torch.Tensor, ops=rans) -> tuple[list[torch.Tensor], torch.Tensor]:
        """Symbols of all segments, and how the streams ended."""
        state = ops.rans_decode_begin(data, ends)
        steps = zip(self.index, self.tables, self.splits, strict=True)
        symbols = [ops.rans_decode_step(state, data, *step) for step in steps]
        return symbols, ops.rans_decode_end(state, data)

    def parts(self, stream: int) -> list[tuple[np.ndarray, np.ndarray, object]]:
        """What one stream holds: symbols, index and tables of its part of each segment."""
        own = [slice(*cuts[stream : stream + 2].tolist()) for cuts in self.splits]
        columns = zip(self.symbols, self.index, self.sets, own, strict=True)
        return [(symbols[o].numpy(), index[o].numpy(), tables) for symbols, index, tables, o in columns]


def even(sizes: list[int], streams: int) -> Batch:
    return Batch([even_splits(size, streams).tolist() for size in sizes], seed=streams)


RAGGED = [[0, 700, 700, 701, 5000, 5003], [0, 0, 0, 0, 0, 0], [0, 0, 31, 31, 31, 1200]]


def as_list(data: torch.Tensor, ends: torch.Tensor) -> list[bytes]:
    starts = [0, *ends.tolist()]
    return [data[a:b].numpy().tobytes() for a, b in pairwise(starts)]
