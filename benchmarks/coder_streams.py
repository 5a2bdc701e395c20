"""The coder's operators on many streams at once: ``python -m benchmarks.coder --device cuda``.

Each number of streams is encoded and decoded by one call, on the CPU with as many threads as torch has and, with
``cuda``, on the GPU. Before anything is timed, a device's bytes must be those of the CPU and decode to the symbols that
were coded. Times are those of the clock, with the device waited for; the fastest round counts.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from aicr_ext.codec.tables import gaussian_tables
from aicr_ext.ops import rans

__all__ = ["STREAMS", "Batch", "stream_rows"]

#: How many at once by default: from a single picture to what keeps a large GPU busy.
STREAMS = (1, 16, 256, 4096, 16384)
#: Symbols of one call at most; more streams get fewer each, the CPU no more than a sixteenth of these.
MOST_SYMBOLS = 1 << 28


@dataclass
class Batch:
    """Streams that share one segment, on one device."""

    symbols: Tensor
    index: Tensor
    tables: Tensor
    splits: Tensor

    @classmethod
    def repeated(cls, symbols: np.ndarray, index: np.ndarray, streams: int, device: str) -> Batch:
        """All streams with the same symbols (n,) int16 under the tables (n,) uint8."""
        splits = torch.arange(streams + 1) * len(symbols)
        parts = (torch.from_numpy(part).to(device).repeat(streams) for part in (symbols, index))
        return cls(*parts, gaussian_tables().tensor.to(device), splits.to(device))

    def encode(self) -> tuple[Tensor, Tensor]:
        return rans.rans_encode([self.symbols], [self.index], [self.tables], [self.splits])

    def decode(self, data: Tensor, ends: Tensor) -> tuple[Tensor, Tensor]:
        """Symbols, and how the streams ended."""
        state = rans.rans_decode_begin(data, ends)
        symbols = rans.rans_decode_step(state, data, self.index, self.tables, self.splits)
        return symbols, rans.rans_decode_end(state, data)


def check(batch: Batch, alone: bytes, workload: str) -> tuple[Tensor, Tensor]:
    """What the batch is coded to, if every stream is ``alone`` and decodes; RuntimeError otherwise."""
    data, ends = batch.encode()
    streams = len(ends)
    each = np.frombuffer(alone, np.uint8)
    made = data.cpu().numpy()
    if len(made) != streams * len(each) or (made.reshape(streams, -1) != each).any():
        raise RuntimeError(f"workload {workload}, {streams} streams: bytes on {data.device} differ from the CPU's")
    symbols, faults = batch.decode(data, ends)
    rans.raise_fault(faults)
    if not torch.equal(symbols, batch.symbols):
        raise RuntimeError(f"workload {workload}, {streams} streams: {data.device} decoded other symbols")
    return data, ends


def fastest(call: Callable[[], object], device: str, rounds: int) -> float:
    times = []
    for _ in range(rounds):
        start = time.perf_counter()
        call()
        if device == "cuda":
            torch.cuda.synchronize()
        times.append(time.perf_counter() - start)
    return min(times)


def stream_rows(
    workload: str, symbols: np.ndarray, index: np.ndarray, device: str, streams: int, rounds: int
) -> dict[str, object]:
    """Rate of encoding and decoding so many streams with these symbols each, or as many as there is room for."""
    most = MOST_SYMBOLS if device == "cuda" else MOST_SYMBOLS // 16
    count = max(1, min(len(symbols), most // streams))
    symbols, index = symbols[:count], index[:count]
    alone, _ = Batch.repeated(symbols, index, 1, "cpu").encode()
    batch = Batch.repeated(symbols, index, streams, device)
    data, ends = check(batch, alone.numpy().tobytes(), workload)
    total = streams * count
    return {
        "workload": workload,
        "device": device,
        "threads": torch.get_num_threads() if device == "cpu" else 0,
        "streams": streams,
        "symbols": total,
        "bits/symbol": 8 * data.numel() / total,
        "encode Gsym/s": total / fastest(batch.encode, device, rounds) / 1e9,
        "decode Gsym/s": total / fastest(lambda: batch.decode(data, ends), device, rounds) / 1e9,
    }
