"""Ending a long loop early without losing what it did."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

__all__ = ["noted_interrupt"]


@contextmanager
def noted_interrupt() -> Iterator[list[int]]:
    """A list that stays empty until the first Ctrl-C (SIGINT), which does nothing else; the second one interrupts.

    Outside the main thread, where Python allows no signal handlers, it stays empty.
    """
    noted: list[int] = []

    def note(number: int, frame: FrameType | None) -> None:
        noted.append(number)
        signal.signal(number, signal.default_int_handler)

    if threading.current_thread() is not threading.main_thread():
        yield noted
        return
    before = signal.signal(signal.SIGINT, note)
    try:
        yield noted
    finally:
        signal.signal(signal.SIGINT, before)
