"""Operators beside their plain-torch definitions, eager and compiled."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import torch

from aicr_ext.profiling.capture import Call
from aicr_ext.profiling.costs import bytes_moved, flops, tensors_in
from aicr_ext.profiling.roofs import Roofs

__all__ = ["compare", "fastest_in_turns"]


def fastest_in_turns(
    calls: Sequence[Callable[..., object]],
    device: str,
    seconds: float = 0.3,
    rounds: int = 5,
    prepare: Callable[[], Sequence[object]] = tuple,
) -> list[float]:
    """The shortest duration of each call in seconds; they take turns, after one to warm up.

    Args:
        calls: get what ``prepare`` has made just before, outside of the time measured.
        device: where they run; on ``"cuda"`` each is waited for.
        seconds, rounds: at least so much time for each, and so many runs.
    """

    def wait() -> None:
        if device == "cuda":
            torch.cuda.synchronize()

    for call in calls:
        call(*prepare())
    best = [float("inf")] * len(calls)
    end, done = time.perf_counter() + seconds * len(calls), 0
    while done < rounds or time.perf_counter() < end:
        for i, call in enumerate(calls):
            arguments = prepare()
            wait()
            start = time.perf_counter()
            call(*arguments)
            wait()
            best[i] = min(best[i], time.perf_counter() - start)
        done += 1
    return best


@torch.no_grad()
def compare(call: Call, roofs: Roofs, *, compiled: bool = False) -> dict[str, object]:
    """One line of a table: the operator's time, and how many times as long its definition takes.

    Args:
        call: its tensors are on the device of ``roofs``.
        compiled: also through ``torch.compile``, which takes a while.

    Returns:
        ``kernel``, ``us``, ``GB/s``, ``GFLOP/s``, ``% of roof``, ``x eager``, ``x compile``; None where there is no
        definition in plain torch, no formula, or nothing was asked for.
    """
    definition = call.definition
    ways: list[Callable[..., object]] = [call.operator]
    if definition is not None:
        ways.append(definition)
        if compiled:
            ways.append(torch.compile(definition, fullgraph=True, dynamic=False))
    own, *others = fastest_in_turns(ways, roofs.device, prepare=call.fresh)
    result = call.operator(*call.fresh())
    size = bytes_moved(call.arguments, result)
    operations = flops(call.operator, tuple(call.arguments), {}, result)
    dtype = str(next(tensors_in(call.arguments)).dtype).removeprefix("torch.")
    return {
        "kernel": str(call),
        "us": 1e6 * own,
        "GB/s": size / own / 1e9,
        "GFLOP/s": operations / own / 1e9 if operations else None,
        "% of roof": 100 * roofs.seconds(size, operations, dtype) / own or None,
        "x eager": others[0] / own if others else None,
        "x compile": others[1] / own if len(others) > 1 else None,
    }
