"""``python -m aicr_ext.train.parts``: cuts a file into parts of limited size, moves some at a time, joins them again.

Parts are plain bytes of the file, ``NAME.part-000`` and on; ``NAME.parts.json`` gives the size and SHA-256 of each and
of the whole. Files of any size pass through: no more than a megabyte is in memory.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

from aicr_ext.files import appearing, appearing_together, is_temporary

__all__ = ["join", "move", "split"]

LISTING = ".parts.json"
FORMAT, VERSION = "aicr_ext parts", 1
_CHUNK = 1 << 20


def split(path: str | Path, out: str | Path, part_mb: float = 16) -> list[Path]:
    """Cuts a file into parts of at most ``part_mb`` megabytes (10^6 bytes) in the folder ``out``.

    The listing appears last, so that parts without one are those of an interrupted cut. Returns all files written.

    Raises:
        ValueError: ``part_mb`` is out of range, or ``out`` holds parts of a file of this name.
        OSError: the file cannot be read or the folder not written.
    """
    path, out = Path(path), Path(out)
    size = int(part_mb * 1e6)
    if size < 1:
        raise ValueError(f"part_mb must be at least 0.000001 (one byte), got {part_mb}")
    if _parts_in(out, path.name) or (out / (path.name + LISTING)).exists():
        raise ValueError(f"{str(out)!r} holds parts of {path.name} already; remove them or name another folder")
    with open(path, "rb") as file, appearing_together(out) as temporary:  # by name, so the listing comes last
        whole, parts = hashlib.sha256(), []
        left = os.fstat(file.fileno()).st_size
        while left > 0 or not parts:  # an empty file has one empty part
            name, digest, written = f"{path.name}.part-{len(parts):03}", hashlib.sha256(), 0
            with open(temporary / name, "wb") as part:
                for chunk in _chunks(file, min(size, left)):
                    part.write(chunk)
                    digest.update(chunk)
                    whole.update(chunk)
                    written += len(chunk)
            parts.append({"name": name, "bytes": written, "sha256": digest.hexdigest()})
            left = left - written if written else 0  # a file that shrinks meanwhile ends here
        fields = {"format": FORMAT, "version": VERSION, "name": path.name}
        fields |= {"bytes": file.tell(), "sha256": whole.hexdigest(), "parts": parts}
        names = [part["name"] for part in parts] + [path.name + LISTING]
        (temporary / names[-1]).write_text(json.dumps(fields, indent=1))
    return [out / name for name in names]


def join(folder: str | Path, path: str | Path, name: str | None = None) -> Path:
    """Puts the parts in ``folder`` together again as the file ``path``, which appears whole or not at all.

    ``name``: which file, where the folder holds parts of several; without it, the only one, or the one named like
    ``path``.

    Raises:
        ValueError: a part is missing, damaged or not of this file, or there is nothing to join; the message names it.
        FileExistsError: ``path`` exists.
    """
    folder, path = Path(folder), Path(path)
    if path.exists():
        raise FileExistsError(f"{path} exists; remove it or name another file")
    listing = _listing(folder, name, path.name)
    try:
        fields = json.loads(listing.read_text())
        if fields["format"] != FORMAT or fields["version"] != VERSION:
            raise ValueError(f"{listing}: not a listing of {FORMAT} of version {VERSION}")
        name, expected = fields["name"], {part["name"]: part for part in fields["parts"]}
    except (KeyError, TypeError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ValueError(f"{listing}: damaged listing of parts ({type(error).__name__}: {error})") from error
    present = _parts_in(folder, name)
    if missing := sorted(expected.keys() - present):
        raise ValueError(f"{str(folder)!r} lacks {len(missing)} of {len(expected)} parts: {', '.join(missing)}")
    if foreign := sorted(present - expected.keys()):
        raise ValueError(f"{folder / foreign[0]}: not in {listing.name}; it belongs to another cut of {name}")
    whole = hashlib.sha256()
    path.parent.mkdir(parents=True, exist_ok=True)
    with appearing(path) as temporary, open(temporary, "wb") as target:
        for part in expected.values():
            digest = hashlib.sha256()
            with open(folder / part["name"], "rb") as file:
                for chunk in _chunks(file):
                    target.write(chunk)
                    digest.update(chunk)
                    whole.update(chunk)
            if digest.hexdigest() != part["sha256"]:
                raise ValueError(f"{folder / part['name']}: damaged, or of another cut of {name} (SHA-256 differs)")
        if whole.hexdigest() != fields["sha256"]:
            raise ValueError(f"{listing}: damaged listing: the joined parts are not the file it describes (SHA-256)")
    return path


def move(folder: str | Path, out: str | Path, files: int, megabytes: float) -> list[Path]:
    """Moves files from ``folder`` to ``out`` by name, listings first, as long as number and sum allow.

    Files in subfolders stay. A file that is too large for what is left lets later, smaller ones pass. Returns the new
    paths.

    Raises:
        ValueError: both folders are the same.
        FileExistsError: ``out`` holds a file of one of the names; the files before it have been moved.
        OSError: a folder cannot be read or written.
    """
    folder, out = Path(folder), Path(out)
    if out.exists() and out.samefile(folder):
        raise ValueError(f"{str(out)!r} is the folder to move from; name another one")
    left = int(megabytes * 1e6)
    moved = []
    for path in sorted(folder.iterdir(), key=lambda p: (not p.name.endswith(LISTING), p.name)):
        size = path.stat().st_size
        if is_temporary(path) or not path.is_file() or size > left or len(moved) >= files:
            continue
        if (out / path.name).exists():
            raise FileExistsError(f"{out / path.name} exists; remove it or name another folder")
        out.mkdir(parents=True, exist_ok=True)
        with appearing(out / path.name) as temporary:
            shutil.copyfile(path, temporary)  # it may be another file system
        path.unlink()
        left -= size
        moved.append(out / path.name)
    return moved


def _listing(folder: Path, name: str | None, wanted: str) -> Path:
    """The listing to join by."""
    found = {path.name.removesuffix(LISTING): path for path in folder.glob("*" + LISTING)}
    if name is None:
        name = next(iter(found)) if len(found) == 1 else wanted
    if name not in found:
        holds = f"lists of parts of {', '.join(sorted(found))}" if found else f"no list of parts (NAME{LISTING})"
        asked = f", none of {name}; say which file with --name" if found else ""
        raise ValueError(f"{str(folder)!r} holds {holds}{asked}")
    return found[name]


def _parts_in(folder: Path, name: str) -> set[str]:
    start = name + ".part-"
    return {path.name for path in folder.iterdir() if path.name.startswith(start)} if folder.is_dir() else set()


def _chunks(file: BinaryIO, count: int | None = None) -> Iterator[bytes]:
    """The next ``count`` bytes of a file, or all that are left, a chunk at a time."""
    while chunk := file.read(_CHUNK if count is None else min(_CHUNK, count)):
        yield chunk
        count = None if count is None else count - len(chunk)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m aicr_ext.train.parts", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    sub = commands.add_parser("split", help="cut a file into parts")
    sub.add_argument("file")
    sub.add_argument("outdir")
    sub.add_argument("--part-mb", type=float, default=16, help="most megabytes of a part (default: %(default)s)")
    sub = commands.add_parser("join", help="put the parts of a file together again")
    sub.add_argument("dir")
    sub.add_argument("file", help="the file to make")
    sub.add_argument("--name", help="name of the file that was cut, where DIR holds parts of several")
    sub = commands.add_parser("move", help="move the first files of a folder to another, as many as the limits allow")
    sub.add_argument("dir")
    sub.add_argument("outdir")
    sub.add_argument("--files", type=int, default=6, help="most files (default: %(default)s)")
    sub.add_argument("--total-mb", type=float, default=60, help="most megabytes (default: %(default)s)")
    return parser


def _run(args: argparse.Namespace) -> Iterable[Path]:
    if args.command == "split":
        return split(args.file, args.outdir, args.part_mb)
    if args.command == "join":
        return [join(args.dir, args.file, args.name)]
    return move(args.dir, args.outdir, args.files, args.total_mb)


def main(argv: list[str] | None = None) -> None:
    parser = _parser()
    try:
        for path in _run(parser.parse_args(argv)):
            print(f"{path}: {path.stat().st_size / 1e6:.2f} MB")
    except (ValueError, OSError) as error:
        parser.exit(1, f"{parser.prog}: error: {error}\n")


if __name__ == "__main__":
    main()
