"""Photographs in few files of limited size, for machines that can only be handed little at a time.

A shard is a plain uncompressed tar file: ``manifest.json`` first, then pictures. The manifest gives the size in
pixels, the number of bytes and the SHA-256 of every picture. Pictures are dealt out in a seeded random order, so that
each shard is a fair sample of all, and training can begin before the last one has arrived.
"""

from __future__ import annotations

import hashlib
import io
import itertools
import json
import os
import random
import tarfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import TypeVar

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from aicr_ext.errors import ImageFormatError
from aicr_ext.files import appearing_together
from aicr_ext.images import refuse_depth

__all__ = ["MINIMUM_SIDE", "Packed", "Picture", "find_pictures", "load", "pack"]

SUFFIXES = {".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff"}
#: Pillow decoders that are offered the bytes.
FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "TIFF")
MINIMUM_SIDE = 256

MANIFEST = "manifest.json"
FORMAT, VERSION = "aicr_ext shard", 1
#: A JPEG is kept as it is where coding it again would save less than a fifth: that is not worth a second loss.
WORTH_CODING = 1.25

_Out = TypeVar("_Out")


@dataclass(frozen=True)
class Picture:
    """A picture that is not read yet: its name below the folder or in its shard, and how to get its bytes."""

    name: str
    read: Callable[[], bytes]


@dataclass(frozen=True)
class Packed:
    """What :func:`pack` did: the files it wrote; how many pictures stayed as they were, were coded anew, left out."""

    shards: list[Path]
    kept: int
    coded: int
    left_out: int


@dataclass(frozen=True)
class _Entry:
    """One picture in a manifest."""

    name: str
    width: int
    height: int
    bytes: int
    sha256: str


def find_pictures(source: str | Path) -> list[Picture]:
    """Every photograph below a folder and in the shards (``.tar``) below it, or those of one shard; by name.

    Raises:
        ValueError: neither a folder nor a tar file, or a tar file that is no complete shard.
    """
    source = Path(source)
    if source.is_file() and source.suffix.lower() == ".tar":
        pictures = list(_pictures_of(source))
    elif source.is_dir():
        pictures = []
        for path in source.rglob("*"):
            if any(part.startswith(".aicr-") for part in path.relative_to(source).parts):
                continue  # left over from an interrupted write
            if path.suffix.lower() == ".tar":
                pictures += _pictures_of(path)
            elif path.suffix.lower() in SUFFIXES:
                pictures.append(Picture(path.relative_to(source).as_posix(), path.read_bytes))
    else:
        found = "is no folder and no .tar file" if source.exists() else "does not exist"
        raise ValueError(f"{str(source)!r} {found}: expected a folder of photographs or shards, or one shard")
    return sorted(pictures, key=lambda picture: PurePosixPath(picture.name))


def load(source: str | Path, minimum_side: int = MINIMUM_SIDE) -> list[Tensor]:
    """The pictures of :func:`find_pictures` whose sides are at least ``minimum_side``, as uint8 (3, H, W).

    One thread for each processor decodes them.

    Raises:
        ValueError: as :func:`find_pictures`; a picture is damaged or is not what the manifest says; none is left.
    """

    def one(picture: Picture) -> Tensor | None:
        image = _decode(picture.name, picture.read(), minimum_side)
        return None if image is None else torch.from_numpy(np.array(image)).permute(2, 0, 1).contiguous()

    images = [image for image in _in_threads(one, find_pictures(source)) if image is not None]
    if not images:
        raise ValueError(f"no picture of at least {minimum_side} pixels a side below {str(source)!r}")
    return images


def pack(
    source: str | Path,
    out: str | Path,
    shard_mb: float = 40,
    quality: int = 95,
    minimum_side: int = MINIMUM_SIDE,
    seed: int = 0,
) -> Packed:
    """Writes ``out/shard-000.tar``, ``shard-001.tar``, ... of about equal size, all of them or none.

    The same pictures, options and version of Pillow give the same bytes. All packed pictures are in memory at once.

    Args:
        source: what :func:`find_pictures` takes; shards are packed anew.
        shard_mb: most megabytes (10^6 bytes) of one tar file, everything in it counted.
        quality: of the JPEGs (4:4:4) that pictures become; a JPEG that is small already stays as it is.
        minimum_side: pictures with a smaller side are left out, as :func:`load` would leave them out.
        seed: of the order.

    Raises:
        ValueError: an argument is out of range, a picture is damaged or does not fit into a shard alone, there is
            none, or ``out`` holds shards already.
    """
    out = Path(out)
    if not 1 <= quality <= 100:
        raise ValueError(f"quality must be 1 to 100, got {quality}")
    if not shard_mb > 0:
        raise ValueError(f"shard_mb must be above 0, got {shard_mb}")
    if out.exists() and not out.is_dir():
        raise ValueError(f"{str(out)!r} is not a folder")
    if present := sorted(path.name for path in out.glob("shard-*.tar")):
        raise ValueError(f"{str(out)!r} holds {present[0]} already; remove its shards or name another folder")

    def one(picture: Picture) -> tuple[bytes, bool, tuple[int, int]] | None:
        data = picture.read()
        image = _decode(picture.name, data, minimum_side)
        return None if image is None else (*_coded(data, image, quality), image.size)

    found = find_pictures(source)
    content, kept = {}, 0
    for picture, packed in zip(found, _in_threads(one, found), strict=True):
        if packed is None:
            continue
        data, as_it_was, (width, height) = packed
        kept += as_it_was
        name = picture.name
        if PurePosixPath(name).suffix.lower() not in {".jpg", ".jpeg"} and not as_it_was:
            name += ".jpg"
        while name in content:  # the same name in two shards, or photo.png beside photo.png.jpg
            name += ".jpg"
        content[name] = (_Entry(name, width, height, len(data), hashlib.sha256(data).hexdigest()), data)
    if not content:
        raise ValueError(f"no picture of at least {minimum_side} pixels a side below {str(source)!r}")

    entries = [entry for entry, _ in content.values()]
    random.Random(seed).shuffle(entries)
    facts = {"quality": quality, "seed": seed}
    runs = _cut(entries, int(shard_mb * 1e6), facts)
    with appearing_together(out) as temporary:
        for number, run in enumerate(runs):
            _write(temporary / f"shard-{number:03}.tar", _members(run, number, len(runs), facts, content))
        shards = [out / path.name for path in sorted(temporary.iterdir())]
    return Packed(shards, kept, len(entries) - kept, len(found) - len(entries))


def _in_threads(call: Callable[[Picture], _Out], pictures: Iterable[Picture]) -> Iterator[_Out]:
    """Results in order. Pillow lets other threads run while it decodes and encodes."""
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as threads:
        yield from threads.map(call, pictures)


def _decode(name: str, data: bytes, minimum_side: int) -> Image.Image | None:
    """The picture as RGB, or None where a side is smaller."""
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            refuse_depth(image, name)
            return image.convert("RGB") if min(image.size) >= minimum_side else None
    except Image.UnidentifiedImageError:
        raise ValueError(f"{name}: no picture in one of the formats {', '.join(FORMATS)}") from None
    except ImageFormatError:
        raise
    except Exception as error:  # decoders of damaged data raise all sorts of things
        raise ValueError(f"{name}: damaged picture ({error})") from error


def _coded(data: bytes, image: Image.Image, quality: int) -> tuple[bytes, bool]:
    """The bytes to pack, and whether they are the ones given."""
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality, subsampling="4:4:4", progressive=True, optimize=True)
    coded = buffer.getvalue()
    is_jpeg = data.startswith(b"\xff\xd8\xff")
    return (data, True) if is_jpeg and len(data) <= WORTH_CODING * len(coded) else (coded, False)


def _manifest(run: Sequence[_Entry], number: int, count: int, facts: dict[str, int]) -> bytes:
    fields = {"format": FORMAT, "version": VERSION, "shard": number, "shards": count, **facts}
    return json.dumps(fields | {"pictures": [asdict(entry) for entry in run]}, indent=1).encode()


def _header(name: str, size: int) -> tarfile.TarInfo:
    """Nothing but name and size: owner and time of day would make two packs of the same pictures differ."""
    header = tarfile.TarInfo(name)
    header.size = size
    return header


def _tar_bytes(run: Sequence[_Entry], number: int, count: int, facts: dict[str, int]) -> int:
    """Size of the tar file that :func:`_write` makes of a run."""
    sizes = {MANIFEST: len(_manifest(run, number, count, facts)), **{entry.name: entry.bytes for entry in run}}
    total = 2 * tarfile.BLOCKSIZE
    for name, size in sizes.items():
        total += len(_header(name, size).tobuf(tarfile.PAX_FORMAT, "utf-8")) + _up(size, tarfile.BLOCKSIZE)
    return _up(total, tarfile.RECORDSIZE)


def _up(value: int, unit: int) -> int:
    return -(-value // unit) * unit


def _cut(entries: Sequence[_Entry], limit: int, facts: dict[str, int]) -> list[list[_Entry]]:
    """The fewest runs of about equal size, in order, each within ``limit`` bytes as a tar file."""
    for entry in entries:
        if (size := _tar_bytes([entry], 0, 1, facts)) > limit:
            raise ValueError(f"{entry.name}: needs a shard of {size / 1e6:.2f} MB alone, above {limit / 1e6:.2f} MB")
    total = sum(entry.bytes for entry in entries)
    for count in itertools.count(max(1, total // limit)):
        runs: list[list[_Entry]] = [[] for _ in range(count)]
        before = 0
        for entry in entries:  # to the run in which its middle lies
            runs[(2 * before + entry.bytes) * count // (2 * total)].append(entry)
            before += entry.bytes
        runs = [run for run in runs if run]
        if all(_tar_bytes(run, number, len(runs), facts) <= limit for number, run in enumerate(runs)):
            return runs
    raise AssertionError("unreachable: at some count every picture is alone")


def _members(
    run: Sequence[_Entry],
    number: int,
    count: int,
    facts: dict[str, int],
    content: dict[str, tuple[_Entry, bytes]],
) -> Iterator[tuple[str, bytes]]:
    yield MANIFEST, _manifest(run, number, count, facts)
    yield from ((entry.name, content[entry.name][1]) for entry in run)


def _write(path: Path, members: Iterable[tuple[str, bytes]]) -> None:
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as tar:
        for name, data in members:
            tar.addfile(_header(name, len(data)), io.BytesIO(data))


def _pictures_of(path: Path) -> Iterator[Picture]:
    """The pictures of one shard, checked against its manifest when they are read."""
    try:
        with tarfile.open(path, "r:") as tar:
            members = {member.name: member for member in tar.getmembers() if member.isreg()}
            if MANIFEST not in members:
                raise ValueError(f"{path}: no shard: it holds no {MANIFEST} (see python -m aicr_ext.train.pack)")
            manifest = json.loads(tar.extractfile(members.pop(MANIFEST)).read())
        if manifest["format"] != FORMAT or manifest["version"] != VERSION:
            raise ValueError(f"{path}: not an {FORMAT} of version {VERSION}")
        entries = [_Entry(**fields) for fields in manifest["pictures"]]
    except (tarfile.TarError, KeyError, TypeError, json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: damaged shard ({type(error).__name__}: {error})") from error
    for entry in entries:
        if entry.name not in members:
            raise ValueError(f"{path}: damaged shard: {entry.name} is in its manifest and not in it")
        yield Picture(entry.name, partial(_read_member, path, members.pop(entry.name).offset_data, entry))
    if members:
        raise ValueError(f"{path}: {min(members)} is not in its manifest; pack pictures instead of adding them")


def _read_member(path: Path, offset: int, entry: _Entry) -> bytes:
    """The bytes of one picture, opened anew so that threads do not share a position."""
    with open(path, "rb") as file:
        file.seek(offset)
        data = file.read(entry.bytes)
    if hashlib.sha256(data).hexdigest() != entry.sha256:
        raise ValueError(f"{path}: damaged shard: {entry.name} is not what its manifest says (SHA-256)")
    return data
