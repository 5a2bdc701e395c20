"""A codec with restorers before and after it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .codecs import FileCodec, ModelCodec
from .restorers import Restorer

__all__ = ["Cascade"]


class Cascade:
    """``before`` restorers, codec, ``after`` restorers, in this order; itself a codec. Both lists may be empty.

    Attributes:
        name: as in tables: the parts joined by ``+``.
        identity: those of all parts; equal identities make equal bytes and pictures.
        codec: the codec inside.
    """

    def __init__(
        self,
        codec: FileCodec,
        *,
        name: str,
        identity: str,
        before: Sequence[Restorer] = (),
        after: Sequence[Restorer] = (),
        qualities: Sequence[float] | None = None,
    ) -> None:
        self.codec = codec
        self.before = tuple(before)
        self.after = tuple(after)
        self.name = "+".join([*(r.name for r in before), name, *(r.name for r in after)])
        self.identity = " + ".join([*(r.identity for r in before), identity, *(r.identity for r in after)])
        self.qualities = tuple(dict.fromkeys(codec.qualities if qualities is None else qualities))  # none twice

    @property
    def model(self) -> ModelCodec | None:
        """Our codec, if that is what this is, without restorers; None otherwise."""
        alone = not self.before and not self.after
        return self.codec if alone and isinstance(self.codec, ModelCodec) else None

    @property
    def relaxed(self) -> ModelCodec | None:
        """Our codec, if what its network makes without coding is what this codes: no restorers, and no search."""
        return self.model if self.model and not self.model.effort else None

    def encode(self, picture: np.ndarray, quality: float) -> bytes:
        for restorer in self.before:
            picture = restorer(picture)
        data = self.codec.encode(picture, quality)
        if not isinstance(data, (bytes, bytearray, memoryview)):
            raise TypeError(f"codec {self.name}: encode must return bytes, got {type(data).__name__}")
        return bytes(data)

    def decode(self, data: bytes) -> np.ndarray:
        picture = self.codec.decode(data)
        if not isinstance(picture, np.ndarray) or picture.dtype != np.uint8 or picture.shape[2:] != (3,):
            got = f"{picture.dtype} {picture.shape}" if isinstance(picture, np.ndarray) else type(picture).__name__
            raise TypeError(f"codec {self.name}: decode must return a uint8 array (H, W, 3), got {got}")
        for restorer in self.after:
            picture = restorer(picture)
        return picture
