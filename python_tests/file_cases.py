"""Files of a tiny network for tests that damage them, and what must hold for every one that is damaged."""

from __future__ import annotations

import tempfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from unittest.mock import patch

import torch
from training import TINY

import aicr_ext
from aicr_ext.codec.checkpoint import export_weights, untrained
from aicr_ext.codec.container import pack, unpack
from aicr_ext.codec.streams import STREAM_BYTES
from aicr_ext.errors import BitstreamError
from aicr_ext.model.config import CONFIGS
from aicr_ext.profiling.memory import added_memory, measures_memory

MAX_PIXELS = 1 << 16
#: By how many bytes one call may raise the memory that the process holds.
_MORE = 64 << 20


def with_crc(body: bytes) -> bytes:
    """A file whose checksum is right, whatever its header says."""
    return body + zlib.crc32(body).to_bytes(4, "little")


class Files:
    """Files of pictures of several sizes, and how they decode.

    Attributes:
        pictures: of each file's bytes, the picture they decode to.
    """

    def __init__(self, weights: Path) -> None:
        export_weights(weights, untrained(TINY, seed=3), {})
        self.decompress: Callable[[bytes], torch.Tensor] = partial(
            aicr_ext.decompress, model=weights, max_pixels=MAX_PIXELS
        )
        self.pictures: dict[bytes, torch.Tensor] = {}
        draw = torch.Generator().manual_seed(1)
        sizes = (((1, 1), 0), ((20, 12), 63), ((40, 70), 32), ((200, 129), 5), ((72, 60), 63))
        for (width, height), quality in sizes:
            picture = torch.rand(3, -(-height // 8), -(-width // 8), generator=draw)
            picture = picture.repeat_interleave(8, 1).repeat_interleave(8, 2)[:, :height, :width]
            # The last one in two or three streams.
            with patch("aicr_ext.codec.streams.STREAM_BYTES", 40 if width == 72 else STREAM_BYTES):
                data = aicr_ext.compress(picture, quality=quality, model=weights)
            self.pictures[data] = self.decompress(data)
        self._streams = [[stream.tobytes() for stream in unpack(data)[1]] for data in self.pictures]

    def check(self, data: bytes) -> str:
        """Decodes any bytes and says how it ended.

        An error is a ``BitstreamError``. Bytes that decode are one of the files, or one whose size or quality
        somebody has changed together with the checksum: to one with as many symbols, such as the picture turned by 90
        degrees. No call takes much memory, where that can be measured.
        """
        if not measures_memory():
            return self._outcome(data)
        outcome, more = added_memory(partial(self._outcome, data))
        assert more <= _MORE, f"{len(data)} bytes took {more >> 20} MiB of memory"
        return outcome

    def _outcome(self, data: bytes) -> str:
        try:
            aicr_ext.read_info(data)
            readable = True
        except BitstreamError:
            readable = False
        try:
            picture = self.decompress(data)
        except BitstreamError as error:
            return type(error).__name__
        assert readable, "a file decodes that read_info refuses"
        return self._check_picture(data, picture)

    def _check_picture(self, data: bytes, picture: torch.Tensor) -> str:
        if data in self.pictures:
            assert torch.equal(picture, self.pictures[data]), "a file decodes to another picture"
            return "decoded"
        header, streams = unpack(data)
        assert pack(header, streams) == data, "a file has two spellings"
        assert [stream.tobytes() for stream in streams] in self._streams, "changed latents decode"
        assert picture.shape == (3, header.height, header.width), "a picture has another size than its file says"
        return "forged"


@contextmanager
def tiny_files() -> Iterator[Files]:
    """``Files``, with the tiny network among the models the package knows."""
    with tempfile.TemporaryDirectory() as folder:
        CONFIGS[TINY.name] = TINY
        try:
            yield Files(Path(folder) / "tiny.safetensors")
        finally:
            del CONFIGS[TINY.name]
