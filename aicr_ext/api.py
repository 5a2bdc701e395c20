"""The functions most programs need: a picture to bytes, bytes to a picture."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from aicr_ext.codec import container
from aicr_ext.codec.checkpoint import shipped_models
from aicr_ext.codec.codec import Codec, File, named, unpack_files
from aicr_ext.errors import ModelMismatchError

__all__ = ["compress", "decompress"]


def _codec(model: str | Path, device: str | torch.device, precision: str) -> Codec:
    """The codec of a name or weight file, kept loaded until the file changes."""
    path = Path(model)
    changed = path.stat().st_mtime_ns if path.is_file() else 0
    return _loaded(str(model), str(device), precision, changed)


@lru_cache(maxsize=2)
def _loaded(model: str, device: str, precision: str, changed: int) -> Codec:
    return Codec(model, device, precision=precision)


def compress(
    image: Tensor | np.ndarray,
    *,
    quality: int = 32,
    model: str | Path = "aicr-t",
    device: str | torch.device | None = None,
    precision: str = "float32",
    streams: int | None = None,
    feedback: bool = True,
    effort: int = 0,
) -> bytes | list[bytes]:
    """Compresses a picture to the bytes of a file.

    Args:
        image: torch tensor (3, H, W) or (B, 3, H, W), floating point in [0, 1] or uint8, on any device; NumPy array
            (H, W, 3) uint8; or a PIL image of mode RGB or L. RGB, any size from 1x1; nothing need be padded.
        quality: 0 (smallest) to 63 (best); one set of weights serves all.
        model: a shipped model's name or the path of a weight file.
        device: where the networks run; default the image's device for a tensor, else the CPU.
        precision: ``"float32"``, ``"bfloat16"`` or ``"auto"``, as in :class:`aicr_ext.Codec`.
        streams: into how many, 1 to 256, the coded symbols are cut, which are coded side by side: several threads or a
            GPU take less time for one picture, and the file grows by 30 to 110 bytes for each. By default one for
            every 64 KiB.
        feedback: let the encoder decode what it has and correct it, where the model can (``docs/model.md``): better
            pictures from the middle qualities on, for the time of decoding.
        effort: steps of a search for latents that are worth their bits more, 0 to 1000 (``docs/model.md``): smaller
            files of the same quality, which decode as fast. A step takes as long as encoding or more; 10 bring most of
            it. Needs a model with a linear shortcut, as the shipped ones have.

    Returns:
        The file's bytes; a list of them for a batch. On a CPU a picture's bytes do not depend on the batch it came in.

    Raises:
        TypeError, ValueError: an argument of the wrong type, shape or range; the message says what is accepted.

    >>> import numpy as np, aicr_ext
    >>> picture = np.full((48, 64, 3), 127, np.uint8)
    >>> len(aicr_ext.compress(picture)) < picture.nbytes
    True
    """
    if device is None:
        device = image.device if isinstance(image, Tensor) else "cpu"
    codec = _codec(model, device, precision)
    return codec.compress(image, quality=quality, streams=streams, feedback=feedback, effort=effort)


def decompress(
    data: bytes | bytearray | memoryview | list[bytes],
    *,
    device: str | torch.device | None = None,
    max_pixels: int = container.MAX_PIXELS,
    model: str | Path | None = None,
    precision: str = "float32",
) -> Tensor | list[Tensor]:
    """Decodes the bytes of a file to a picture.

    Args:
        data: what :func:`compress` returned or a file held; a list gives a list, and files of one size decode together.
        device: where the networks run and the picture is returned; default the CPU.
        max_pixels: refuse larger pictures before anything is allocated.
        model: path of the weight file, for files made with weights that are not in this package.
        precision: as in :func:`compress`; it need not be the one the file was made with.

    Returns:
        float32 (3, H, W) in [0, 1].

    Raises:
        BitstreamError: not an AICR file, damaged, of a newer version, too large, or made with other weights; see
            :mod:`aicr_ext.errors` for its kinds. In a list the message begins with the file's place, counted from 1.
        TypeError: not bytes.

    >>> import torch, aicr_ext
    >>> data = aicr_ext.compress(torch.rand(3, 20, 30))
    >>> aicr_ext.decompress(data).shape
    torch.Size([3, 20, 30])
    """
    several = isinstance(data, (list, tuple))
    files = unpack_files(data if several else [data], max_pixels)
    places: dict[str | Path, list[int]] = {}
    for place, file in enumerate(files):
        places.setdefault(_model_of(file) if model is None else model, []).append(place)
    pictures: dict[int, Tensor] = {}
    for name, chosen in places.items():
        decoded = _codec(name, device or "cpu", precision).decode_files([files[place] for place in chosen])
        pictures.update(zip(chosen, decoded, strict=True))
    return [pictures[place] for place in range(len(files))] if several else pictures[0]


def _model_of(file: File) -> str:
    if file.header.model not in shipped_models():
        with named(file.name):
            raise ModelMismatchError(
                f"the file was made with weights of {file.header.model}, which are not in this package; "
                "name their file (model)"
            )
    return file.header.model
