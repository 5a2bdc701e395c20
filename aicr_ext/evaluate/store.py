"""Measurements kept in a CSV file, so that nothing is measured twice and little is lost.

A measurement is of the pixels of input and target (by hash), the identity of the codec, its quality and the
convention. Names are only labels: the same measurement under another label is copied, not repeated.
"""

from __future__ import annotations

import csv
import fcntl
import io
import os
import time
from collections.abc import Callable, Iterable
from pathlib import Path

from aicr_ext.files import atomic_write

__all__ = ["FIELDS", "Row", "Store", "csv_text"]

Row = dict[str, str | int | float | None]


def _quality(text: str) -> int | float:
    return int(text) if text.lstrip("-").isdigit() else float(text)


#: Columns of pictures.csv and their types. An empty cell is None: not defined, or not asked for.
FIELDS: dict[str, Callable[[str], str | int | float]] = {
    "dataset": str,
    "degradation": str,
    "picture": str,
    "codec": str,
    "quality": _quality,
    "convention": str,
    "width": int,
    "height": int,
    "bytes": int,
    "bpp": float,
    "psnr": float,
    "ms_ssim": float,
    "ms_ssim_db": float,
    "lpips": float,
    "estimated_bpp": float,
    "pixels": str,
    "identity": str,
}

_LABELS = ("dataset", "degradation", "picture", "codec")
_CONTENT = ("pixels", "identity", "quality", "convention")

# Seconds between two writes while a large picture is measured.
_INTERVAL = 20.0


class Store:
    """Rows of one CSV file, as a context manager: read at its begin, and written at its end, also that of a failure.

    Attributes:
        reused: how many rows were found so far.

    Args:
        path: of the file, which need not be there; its folder is made.
        fresh: measure everything anew. Rows that are not measured again stay in the file.

    Raises:
        ValueError: the file is there but is not one of these, or another process is writing it.
    """

    def __init__(self, path: str | Path, *, fresh: bool = False) -> None:
        self.path = Path(path)
        self.reused = 0
        self._fresh = fresh

    def __enter__(self) -> Store:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._folder = os.open(self.path.parent, os.O_RDONLY)
        try:
            self._lock()
            self._rows = {_key(row, (*_LABELS, *_CONTENT)): row for row in _read(self.path)}
        except BaseException:
            os.close(self._folder)
            raise
        self._known = {} if self._fresh else {_key(row, _CONTENT): row for row in self._rows.values()}
        self._changed = False
        self._written = time.monotonic()
        return self

    def _lock(self) -> None:
        try:
            fcntl.flock(self._folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise ValueError(f"{self.path.parent}: another evaluation is writing here") from None

    def __exit__(self, *_: object) -> None:
        try:
            self.flush()
        finally:
            os.close(self._folder)

    def find(self, labels: Row, *needed: str) -> Row | None:
        """The measurement with these contents, under these labels; None if there is none with all ``needed`` cells."""
        known = self._known.get(_key(labels, _CONTENT))
        if known is None or any(known[name] is None for name in needed):
            return None
        self.reused += 1
        row = known | labels
        key = _key(row, (*_LABELS, *_CONTENT))
        if self._rows.get(key) != row:
            self._rows[key], self._changed = row, True
        return row

    def add(self, row: Row) -> Row:
        """Keeps a measurement; absent columns become None. Written at the next flush, or after some seconds."""
        row = {name: row.get(name) for name in FIELDS}
        self._rows[_key(row, (*_LABELS, *_CONTENT))] = row
        self._known[_key(row, _CONTENT)] = row
        self._changed = True
        if time.monotonic() - self._written > _INTERVAL:
            self.flush()
        return row

    def flush(self) -> None:
        """Writes the file, complete or not at all, if anything changed."""
        if self._changed:
            atomic_write(self.path, csv_text(list(self._rows.values()), FIELDS).encode())
            self._changed = False
        self._written = time.monotonic()


def csv_text(rows: list[Row], columns: Iterable[str]) -> str:
    """Rows as CSV with a header line; None becomes an empty cell."""
    file = io.StringIO()
    writer = csv.DictWriter(file, list(columns), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return file.getvalue()


def _read(path: Path) -> list[Row]:
    if not path.exists():
        return []
    try:
        with open(path, newline="", encoding="utf-8") as file:
            reader = csv.DictReader(file, strict=True)
            if reader.fieldnames != list(FIELDS):
                raise ValueError("other columns")
            return [{name: _cell(name, row[name]) for name in FIELDS} for row in reader]
    except (ValueError, TypeError, csv.Error) as error:
        raise ValueError(
            f"{path}: not measurements of this version of `aicr eval` ({error}); choose another folder"
        ) from error


def _cell(name: str, text: str) -> str | int | float | None:
    kind = FIELDS[name]
    if kind is str:
        return text
    return kind(text) if text else None


def _key(row: Row, names: tuple[str, ...]) -> tuple:
    return tuple(row[name] for name in names)
