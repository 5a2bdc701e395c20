"""Every operator that a call runs, timed."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, replace

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from aicr_ext.profiling.capture import Capture
from aicr_ext.profiling.costs import bytes_moved, flops, signature, tensors_in

__all__ = ["Row", "profile"]


@dataclass(frozen=True)
class Row:
    """All calls of one operator with arguments of one kind.

    Attributes:
        name: of the operator, ``aten::bmm`` or ``aicr_ext::gelu_gate``.
        arguments: their shapes (:func:`aicr_ext.profiling.costs.signature`).
        dtype: of the first tensor.
        calls: number of calls.
        seconds: of all calls together, those of the fastest round.
        bytes: moved at least, of all calls together.
        flops: floating-point operations of all calls together; 0 where no formula is known.
        roof_seconds: the least time that the roofs allow for all calls; 0 without roofs.
    """

    name: str
    arguments: str
    dtype: str
    calls: int
    seconds: float
    bytes: int
    flops: int
    roof_seconds: float = 0.0


def profile(
    call: Callable[[], object],
    rounds: int = 3,
    *,
    device: str = "cpu",
    roofs: object = None,
    capture: Capture | None = None,
    nvtx: bool = False,
) -> list[Row]:
    """Run a call, once to warm up, then ``rounds`` times with every operator timed.

    Args:
        call: without gradients, usually; operators of a backward pass are seen too.
        rounds: the fastest one of each row counts.
        device: where it runs. On ``"cuda"`` times are between events on the current stream before and after each
            operator, so they include the time in which the GPU waits for the CPU; nothing waits for the GPU in
            between.
        roofs: :class:`aicr_ext.profiling.Roofs` to compare with.
        capture: where to keep arguments of this package's operators.
        nvtx: mark every operator as an NVTX range with its name (CUDA only).

    Returns:
        Rows, the longest first. What is not in torch operators (Python, the coder in plain buffers) is in none.
    """
    call()
    best: dict[tuple[str, str, str], Row] = {}
    for number in range(rounds):
        recorder = _Recorder(torch.device(device).type, roofs, capture if number == 0 else None, nvtx)
        with recorder:
            call()
        for key, row in recorder.rows().items():
            if key not in best or row.seconds < best[key].seconds:
                best[key] = row
    return sorted(best.values(), key=lambda row: -row.seconds)


class _Recorder(TorchDispatchMode):
    def __init__(self, kind: str, roofs: object, capture: Capture | None, nvtx: bool) -> None:
        super().__init__()
        self.kind, self.roofs, self.capture, self.nvtx = kind, roofs, capture, nvtx
        self.timed: list[tuple[Row, float | tuple[torch.cuda.Event, torch.cuda.Event]]] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        name = func._schema.name
        if self.capture is not None:
            self.capture.keep(func, args, kwargs)
        with torch.cuda.nvtx.range(name) if self.nvtx and self.kind == "cuda" else nullcontext():
            result, duration = self._time(func, args, kwargs)
        if func.is_view or name == "aten::_unsafe_view":
            return result
        inputs = [*args, *kwargs.values()]
        size, operations = bytes_moved(inputs, result), flops(func, args, kwargs, result)
        dtype = next((str(t.dtype).removeprefix("torch.") for t in tensors_in([inputs, result])), "")
        least = self.roofs.seconds(size, operations, dtype) if self.roofs else 0.0
        self.timed.append((Row(name, signature(inputs), dtype, 1, 0.0, size, operations, least), duration))
        return result

    def _time(self, func, args, kwargs):
        if self.kind == "cuda":
            start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            start.record()
            result = func(*args, **kwargs)
            end.record()
            return result, (start, end)
        begin = time.perf_counter()
        result = func(*args, **kwargs)
        return result, time.perf_counter() - begin

    def rows(self) -> dict[tuple[str, str, str], Row]:
        if self.kind == "cuda":
            torch.cuda.synchronize()
        merged: dict[tuple[str, str, str], Row] = {}
        for row, duration in self.timed:
            seconds = duration if isinstance(duration, float) else duration[0].elapsed_time(duration[1]) / 1e3
            key = (row.name, row.arguments, row.dtype)
            before = merged.get(key, replace(row, calls=0, bytes=0, flops=0, roof_seconds=0.0))
            merged[key] = replace(
                before,
                calls=before.calls + 1,
                seconds=before.seconds + seconds,
                bytes=before.bytes + row.bytes,
                flops=before.flops + row.flops,
                roof_seconds=before.roof_seconds + row.roof_seconds,
            )
        return merged
