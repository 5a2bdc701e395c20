"""Which files ``aicr compress`` and ``aicr decompress`` work on, and what theirs are called."""

from __future__ import annotations

import errno
import os
from collections import Counter
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import NamedTuple

from .cli_options import UsageError

__all__ = ["Job", "Plan", "plan_of"]


class Job(NamedTuple):
    """One file to read and the file to write for it."""

    source: Path
    target: Path


class Plan(NamedTuple):
    """The files to work on, how many others the folder holds, and why some of its folders could not be read."""

    jobs: list[Job]
    passed_over: int = 0
    unread: Sequence[OSError] = ()


def plan_of(source: Path, target: Path | None, suffixes: Collection[str], new_suffix: str) -> Plan:
    """What IN and OUT of a command mean: a file, or all files with one of the suffixes (lower case) below a folder.

    Raises:
        FileNotFoundError: IN is not there.
        OSError: none of its folders could be read.
        UsageError: OUT does not go with IN.
        ValueError: a folder without such a file.
    """
    if not source.exists():
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(source))
    if not source.is_dir():
        if target is None:
            target = source.with_suffix(new_suffix)
        elif target.is_dir():
            target = target / source.with_suffix(new_suffix).name
        return Plan([Job(source, target)])
    if target is None:
        raise UsageError(f"{source} is a folder, so OUT must be given, and be a folder too")
    if target.exists() and not target.is_dir():
        raise UsageError(f"{source} is a folder, but OUT is a file: {target}")
    found: list[Path] = []
    unread: list[OSError] = []
    passed_over = 0
    inside = target.resolve() if target.resolve() != source.resolve() else None  # OUT may lie within IN
    for folder, subfolders, names in os.walk(source, onerror=unread.append):
        subfolders[:] = sorted(name for name in subfolders if (Path(folder) / name).resolve() != inside)
        for name in sorted(names):
            if Path(name).suffix.lower() in suffixes:
                found.append((Path(folder) / name).relative_to(source))
            else:
                passed_over += 1
    if not found and unread:
        raise unread[0]
    if not found:
        raise ValueError(f"{source}: nothing to do here, {passed_over} files of other types")
    mirrored = _mirrored(found, new_suffix)
    return Plan([Job(source / path, target / mirrored[path]) for path in found], passed_over, unread)


def _mirrored(found: list[Path], new_suffix: str) -> dict[Path, Path]:
    """Names with the new suffix, no two of them the same.

    ``photo.png`` and ``photo.jpg`` side by side must not become one file, so they keep their suffix, and with it they
    may take the name that a third one (``photo.jpg.webp``) would have had.
    """
    names = {path: path.with_suffix(new_suffix) for path in found}
    while True:
        taken = Counter(names.values())
        full = {p: p.with_name(p.name + new_suffix) for p, name in names.items() if taken[name] > 1}
        if not full:
            return names
        names |= full
