"""What a run tells while it goes on: lines of JSON in a file, and a bar on the terminal."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TextIO

__all__ = ["Journal"]


class Journal:
    """Appends to ``path`` and, with ``bar``, keeps a progress bar on standard error. A context manager.

    ``path`` None keeps no file: only one process of a run does.
    """

    def __init__(self, path: Path | None, bar: bool) -> None:
        self._file = path and _opened(path)
        self._bar = None
        if bar:
            from tqdm import tqdm

            layout = "{percentage:3.0f}%|{bar}| {elapsed}<{remaining}{postfix}"
            self._bar = tqdm(total=1.0, bar_format=layout, file=sys.stderr, leave=False)

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, *_: object) -> None:
        if self._file:
            self._file.close()
        if self._bar is not None:
            self._bar.close()

    def write(self, step: int, seconds: float, values: dict[str, object]) -> None:
        """One line: the step, the seconds spent so far, and ``values``."""
        if self._file:
            self._file.write(json.dumps({"step": step, "seconds": round(seconds, 1), **values}) + "\n")
            self._file.flush()
        if self._bar is not None and "loss" in values:
            shown = ", ".join(f"{name} {values[name]:.3f}" for name in ("loss", "bpp", "psnr") if name in values)
            self._bar.set_postfix_str(f"step {step}, {shown}", refresh=False)

    def progress(self, fraction: float) -> None:
        """Moves the bar to ``fraction`` of the run."""
        if self._bar is not None:
            self._bar.update(min(fraction, 1.0) - self._bar.n)


def _opened(path: Path) -> TextIO:
    """A log to append to, without the part of a line that a run leaves whose machine or disk failed it."""
    if path.exists():
        with path.open("rb+") as file:
            file.truncate(file.read().rfind(b"\n") + 1)
    return path.open("a", encoding="utf-8")
