"""How much memory a call takes, of all libraries together."""

from __future__ import annotations

import ctypes
import gc
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import TypeVar

__all__ = ["added_memory", "measures_memory"]

Result = TypeVar("Result")


@cache
def measures_memory() -> bool:
    """Whether :func:`added_memory` works here: on Linux, where a process may reset the highest number there was."""
    try:
        _forget_peak()
    except OSError:
        return False
    return True


def added_memory(call: Callable[[], Result]) -> tuple[Result, int]:
    """What a call gives, and how many bytes the process held at most while it ran, less those it held before.

    Memory that was freed before goes back to the system first, or the call would take it uncounted. Garbage stays as
    long: to collect it takes 20 times as long as to decode a small file.

    Raises:
        OSError: it cannot be measured here.
    """
    collects = gc.isenabled()
    gc.disable()
    try:
        if trim := getattr(ctypes.CDLL(None), "malloc_trim", None):  # glibc has it
            trim(0)
        _forget_peak()
        before = _held("VmRSS")
        result = call()
        return result, _held("VmHWM") - before
    finally:
        if collects:
            gc.enable()


def _forget_peak() -> None:
    """The most memory that the process held becomes what it holds now."""
    Path("/proc/self/clear_refs").write_text("5")


def _held(field: str) -> int:
    """A number of the process's status, in bytes."""
    (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(f"{field}:"))
    return int(line.split()[1]) << 10
