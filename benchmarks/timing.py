"""Timing, tables and the circumstances of a measurement, shared by the benchmarks."""

from __future__ import annotations

import csv
import datetime
import io
import os
import statistics
import subprocess
import time
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path

import torch

from aicr_ext import doctor
from aicr_ext.files import atomic_write

__all__ = ["circumstances", "measure", "measure_events", "measure_together", "print_table", "write_csv"]

#: Bytes written before each call that is measured by events: more than the L2 cache of any GPU holds.
_FLUSH_BYTES = 256 << 20


def circumstances(device: str = "cpu") -> dict[str, str]:
    """Processor, GPU if it is the device, torch, day and commit, for files of results.

    Where there is no git, the environment variable ``AICR_COMMIT`` names the commit.
    """
    commit = os.environ.get("AICR_COMMIT", "")
    if not commit:
        done = subprocess.run(
            ["git", "describe", "--always", "--dirty", "--exclude=*"],
            cwd=Path(__file__).parent,
            capture_output=True,
            text=True,
            check=False,
        )
        commit = done.stdout.strip() or "unknown"
    return {
        "cpu": doctor.examine_cpu()["model"],
        **({"gpu": torch.cuda.get_device_name()} if device == "cuda" else {}),
        "torch": torch.__version__,
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "commit": commit,
    }


def measure(call: Callable[[], object], seconds: float = 0.3, device: str = "cpu") -> float:
    """Median duration of ``call`` in seconds, over at least 5 and at most 1000 runs after one to warm up."""
    return measure_together([call], seconds, device)[0]


def measure_together(
    calls: Sequence[Callable[[], object]], seconds: float = 0.3, device: str = "cpu", processor_time: bool = False
) -> list[float]:
    """Median duration of each call in seconds. They take turns, so that a busy machine slows all of them alike.

    Args:
        calls: what to measure; each runs at least 5 and at most 1000 times after one run to warm up.
        seconds: time to spend on each.
        device: ``"cuda"`` waits for the device after every call.
        processor_time: measure that of this process instead of the time passed: on one thread it is the same, but
            for the time that other programs had the processor.
    """

    def run(call: Callable[[], object]) -> None:
        call()
        if device == "cuda":
            torch.cuda.synchronize()

    for call in calls:
        run(call)
    clock = time.process_time if processor_time else time.perf_counter
    durations: list[list[float]] = [[] for _ in calls]
    end = time.perf_counter() + seconds * len(calls)
    while len(durations[0]) < 5 or (time.perf_counter() < end and len(durations[0]) < 1000):
        for call, measured in zip(calls, durations, strict=True):
            start = clock()
            run(call)
            measured.append(clock() - start)
    return [statistics.median(measured) for measured in durations]


def measure_events(calls: Sequence[Callable[[], object]], seconds: float = 0.3) -> list[float]:
    """Median duration of each call on the current CUDA device in seconds, between events; they take turns.

    Before each call the L2 cache is filled with other data. While the device does that, Python queues the call: its own
    time counts only in so far as it is longer. Runs and turns are those of :func:`measure_together`.
    """
    flush = _flush_memory()
    for call in calls:
        call()
    torch.cuda.synchronize()
    durations: list[list[float]] = [[] for _ in calls]
    end = time.perf_counter() + seconds * len(calls)
    while len(durations[0]) < 5 or (time.perf_counter() < end and len(durations[0]) < 1000):
        for call, measured in zip(calls, durations, strict=True):
            start, stop = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            flush.zero_()
            start.record()
            call()
            stop.record()
            stop.synchronize()
            measured.append(start.elapsed_time(stop) / 1e3)
    return [statistics.median(measured) for measured in durations]


@cache
def _flush_memory() -> torch.Tensor:
    return torch.empty(_FLUSH_BYTES, dtype=torch.uint8, device="cuda")


def print_table(rows: Sequence[dict[str, object]]) -> None:
    """Rows with the same keys as one Markdown table; numbers to the right."""
    names = list(rows[0])
    cells = [[_text(row[name]) for name in names] for row in rows]
    widths = [max(len(name), *(len(line[i]) for line in cells)) for i, name in enumerate(names)]
    right = [not isinstance(rows[0][name], str) for name in names]

    def line(texts: Sequence[str]) -> str:
        padded = (t.rjust(w) if r else t.ljust(w) for t, w, r in zip(texts, widths, right, strict=True))
        return "| " + " | ".join(padded) + " |"

    print(line(names))
    print("|" + "|".join("-" * (w + 1) + (":" if r else "-") for w, r in zip(widths, right, strict=True)) + "|")
    for texts in cells:
        print(line(texts))


def write_csv(path: str | Path, rows: Sequence[dict[str, object]]) -> None:
    """Rows with the same keys, with a header line. The file appears whole, in place of one that was there."""
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, rows[0])
    writer.writeheader()
    writer.writerows(rows)
    atomic_write(path, text.getvalue().encode())


def _text(value: object) -> str:
    return (
        f"{value:.3g}"
        if isinstance(value, float) and abs(value) < 100
        else (f"{value:.0f}" if isinstance(value, float) else str(value))
    )
