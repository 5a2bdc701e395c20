"""Files that appear whole or not at all."""

from __future__ import annotations

import errno
import os
import secrets
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = ["appearing", "appearing_together", "atomic_write", "is_temporary"]

_PREFIX, _SUFFIX = ".aicr-", ".part"


def is_temporary(path: Path) -> bool:
    """Whether a file or folder has the name of one that is still being written, or whose writer was killed."""
    return path.name.startswith(_PREFIX) and path.name.endswith(_SUFFIX)


def _temporary(folder: Path) -> Path:
    return folder / f"{_PREFIX}{secrets.token_hex(8)}{_SUFFIX}"


@contextmanager
def appearing(path: str | os.PathLike[str]) -> Iterator[Path]:
    """The name of a new file in the folder of ``path``, for the block to write; it then takes the place of ``path``.

    If the block fails, Ctrl-C included, the new file is removed and what was at ``path`` stays as it was. Links are
    followed, and the permissions of a replaced file are kept. A pipe or device is not replaced: the block gets its
    name.

    Raises:
        OSError: the folder cannot be written to; ``filename`` is ``path``.
    """
    path = Path(path)
    target = Path(os.path.realpath(path))
    if target.exists() and not target.is_file():
        if target.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
        yield path
        return
    temporary = _temporary(target.parent)
    try:
        yield temporary
        if target.exists():
            temporary.chmod(stat.S_IMODE(target.stat().st_mode))
        os.replace(temporary, target)
    except BaseException as error:
        temporary.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.errno is not None and error.filename in (None, str(temporary)):
            error.filename, error.filename2 = str(path), None
        raise


@contextmanager
def appearing_together(folder: str | os.PathLike[str]) -> Iterator[Path]:
    """A new folder inside ``folder``, for the block to put files into; they then move to ``folder``, by name.

    If the block fails, none does. ``folder`` is made if it is not there.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    temporary = _temporary(folder)
    temporary.mkdir()
    try:
        yield temporary
        for path in sorted(temporary.iterdir()):
            os.replace(path, folder / path.name)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def atomic_write(path: str | os.PathLike[str], data: bytes) -> None:
    """Write ``data`` to ``path`` as :func:`appearing` does."""
    with appearing(path) as temporary, open(temporary, "wb") as file:
        file.write(data)
