"""Folders of pictures as data sets."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from aicr_ext.images import READ_SUFFIXES, read_image

from .synthetic import Synthetic

__all__ = ["CLEAN", "NO_TARGET", "PAIRS", "SYNTHETIC", "DataSet", "Sample", "open_folder"]

CLEAN, PAIRS, SYNTHETIC, NO_TARGET = "clean", "pairs", "synthetic", "no target"


@dataclass(frozen=True)
class Sample:
    """A picture to compress and what it should decode to.

    Attributes:
        name: of the file, with its suffix.
        input: (H, W, 3) uint8, what the codec gets.
        target: (H, W, 3) uint8, what it is compared with; None where nobody knows.
        exact: (H, W, 3) float32, the input before it was rounded and clipped to 8 bits.
    """

    name: str
    input: np.ndarray
    target: np.ndarray | None
    exact: np.ndarray = field(repr=False)

    @property
    def damaged(self) -> bool:
        """Whether input and target are known to differ."""
        return self.target is not None and not np.array_equal(self.input, self.target)

    @property
    def pixels(self) -> str:
        """Hash of both pictures: 16 hexadecimal digits that tell whether a measurement is of these very pixels."""
        digest = hashlib.sha256(str(self.input.shape).encode())
        digest.update(np.ascontiguousarray(self.input))
        digest.update(b"" if self.target is None else np.ascontiguousarray(self.target))
        return digest.hexdigest()[:16]


@dataclass(frozen=True)
class DataSet:
    """A named list of samples, read one at a time.

    Attributes:
        name: of the folder, unless another was given.
        kind: ``clean``, ``synthetic`` (clean pictures damaged here), ``pairs`` or ``no target``.
        degradation: text of the synthetic degradation; empty if there is none.
    """

    name: str
    kind: str
    degradation: str
    names: tuple[str, ...]
    read: Callable[[str], Sample] = field(repr=False)

    @property
    def label(self) -> str:
        """Name and degradation, ``kodak+gaussian_noise:sigma=25``."""
        return f"{self.name}+{self.degradation}" if self.degradation else self.name

    def __len__(self) -> int:
        return len(self.names)

    def __iter__(self) -> Iterator[Sample]:
        return map(self.read, self.names)


def open_folder(
    folder: str | Path,
    *,
    name: str | None = None,
    degradation: Synthetic | str | None = None,
    target: bool = True,
    limit: int | None = None,
) -> DataSet:
    """The data set of a folder.

    A folder with ``input/`` and ``target/`` holds pairs: files of one name, whatever their suffixes. Any other folder
    holds pictures; they are clean ones, to be damaged by ``degradation`` if there is one, or with ``target=False``
    real ones whose clean picture does not exist.

    Args:
        folder: where the pictures are; subfolders are not searched.
        name: of the data set; default that of the folder.
        degradation: what to do to clean pictures, or its text.
        target: whether the pictures of a folder without pairs are their own targets.
        limit: take the first so many, by name.

    Raises:
        FileNotFoundError: no such folder.
        ValueError: no pictures in it, pictures without partner, or a degradation of pictures that are damaged already.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: no such folder")
    name = name or folder.resolve().name
    if isinstance(degradation, str):
        degradation = Synthetic(degradation)
    paired = (folder / "input").is_dir() or (folder / "target").is_dir()
    if degradation is not None and (paired or not target):
        raise ValueError(f"{folder}: {degradation.text!r} needs clean pictures, and these are damaged already")
    if paired and target:
        inputs, targets = _pictures(folder / "input"), _pictures(folder / "target")
        _check_partners(folder, inputs, targets)
        kind = PAIRS

        def read(stem: str) -> Sample:
            return _pair(inputs[stem], targets[stem])

        names = tuple(inputs)
    else:
        files = {path.name: path for path in _pictures(folder / "input" if paired else folder, whole=True).values()}
        kind = (SYNTHETIC if degradation else CLEAN) if target else NO_TARGET

        def read(file: str) -> Sample:
            return _single(files[file], degradation, target)

        names = tuple(files)
    return DataSet(name, kind, degradation.text if degradation else "", names[:limit], read)


def _pictures(folder: Path, whole: bool = False) -> dict[str, Path]:
    """Pictures by name without suffix (or with it), in order."""
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: no such folder, and pairs need input/ and target/")
    files = sorted(path for path in folder.iterdir() if path.suffix.lower() in READ_SUFFIXES)
    if not files:
        raise ValueError(f"{folder}: no pictures in it; accepted: {', '.join(sorted(READ_SUFFIXES))}")
    found = {path.name if whole else path.stem: path for path in files}
    if len(found) < len(files):
        twice = sorted({path.stem for path in files if found[path.stem] != path})
        raise ValueError(f"{folder}: several files named {', '.join(twice)}")
    return found


def _check_partners(folder: Path, inputs: dict[str, Path], targets: dict[str, Path]) -> None:
    alone = sorted(inputs.keys() ^ targets.keys())
    if alone:
        shown = ", ".join(alone[:5]) + (", ..." if len(alone) > 5 else "")
        raise ValueError(f"{folder}: {len(alone)} pictures without partner in input/ or target/: {shown}")


def _pair(input_file: Path, target_file: Path) -> Sample:
    damaged, clean = (np.array(read_image(path)) for path in (input_file, target_file))
    if damaged.shape != clean.shape:
        sizes = " and ".join(f"{p.shape[1]}x{p.shape[0]}" for p in (damaged, clean))
        raise ValueError(f"{input_file}: input and target differ in size, {sizes}")
    return Sample(input_file.name, damaged, clean, _exact(damaged))


def _single(file: Path, degradation: Synthetic | None, target: bool) -> Sample:
    picture = np.array(read_image(file))
    if degradation is None:
        return Sample(file.name, picture, picture if target else None, _exact(picture))
    damaged, exact = degradation(picture, file.name)
    return Sample(file.name, damaged, picture, exact)


def _exact(picture: np.ndarray) -> np.ndarray:
    return picture.astype(np.float32) / 255
