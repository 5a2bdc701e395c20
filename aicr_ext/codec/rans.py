"""The entropy coder: integer symbols to bytes and back, with one frequency table chosen per symbol.

An interleaved rANS coder whose tables are integers, so that a stream decodes to the same symbols on every
machine. ``docs/bitstream.md`` describes the bytes; :mod:`aicr_ext.codec.rans_reference` decodes them in plain
Python. This is the coder for plain buffers, one stream at a time; :mod:`aicr_ext.ops.rans` codes many on tensors.

>>> import numpy as np
>>> from aicr_ext.codec.rans import Decoder, Encoder, TableSet
>>> tables = TableSet(np.array([[4096, 8192, 4000, 96]], np.int32), [4], [-1], [0])  # -1, 0, 1 and the escape
>>> symbols, index = np.array([0, 1, -1, 0, 300], np.int16), np.zeros(5, np.uint8)
>>> encoder = Encoder()
>>> encoder.push(symbols, index, tables)
>>> decoder = Decoder(encoder.finish())
>>> decoder.pop(index, tables)
array([  0,   1,  -1,   0, 300], dtype=int16)
>>> decoder.finish()
"""

from __future__ import annotations

import hashlib
from functools import cached_property

import numpy as np
import numpy.typing as npt
import torch

from .._native import require_C

__all__ = ["MAX_ENTRIES", "MAX_TABLES", "PROBABILITY_BITS", "Decoder", "Encoder", "TableSet"]

PROBABILITY_BITS = 14
"""The frequencies of a table sum to ``2 ** PROBABILITY_BITS``."""
MAX_ENTRIES = 64
"""Most entries of one table, the escape included."""
MAX_TABLES = 256
"""Most tables of one set: an index is one byte."""


def _integers(value: npt.ArrayLike, name: str, dtype: type, ndim: int) -> np.ndarray:
    """``value`` as a contiguous array of ``dtype``, if it holds integers that fit."""
    array = np.asarray(value)
    if array.dtype.kind not in "iu" or array.ndim != ndim:
        raise ValueError(
            f"{name} must be an integer array with {ndim} dimension(s), got {array.dtype} of shape {array.shape}"
        )
    limits = np.iinfo(dtype)
    if array.size and (array.min() < limits.min or array.max() > limits.max):
        raise ValueError(f"{name} must fit {np.dtype(dtype)}, got values {array.min()} to {array.max()}")
    return np.array(array, dtype=dtype, order="C")


def _vector(value: np.ndarray | torch.Tensor, name: str, dtype: type) -> np.ndarray:
    """``value`` as an array on the same memory, if it is a contiguous one-dimensional array or CPU tensor of
    ``dtype``."""
    if isinstance(value, torch.Tensor):
        if value.device.type != "cpu":
            raise ValueError(f"{name} must be in the memory of the CPU, got a tensor on {value.device}")
        value = value.detach().numpy()
    if not isinstance(value, np.ndarray):
        raise ValueError(f"{name} must be a NumPy array of {np.dtype(dtype)}, got {type(value).__name__}")
    if value.dtype != dtype or value.ndim != 1 or not value.flags.c_contiguous:
        order = "contiguous" if value.flags.c_contiguous else "not contiguous"
        raise ValueError(
            f"{name} must be a contiguous one-dimensional array of {np.dtype(dtype)}, "
            f"got {value.dtype} of shape {value.shape}, {order}"
        )
    return value


class TableSet:
    """Up to 256 frequency tables.

    Args:
        frequencies: ``[T, A]`` integers, A ≤ 64. Row t uses its first ``sizes[t]`` entries: each at least 1,
            their sum 16384. The last of them is the escape; entry k before it stands for the quotient
            ``offsets[t] + k``.
        sizes: ``[T]``, 2 … A, or 0 for a *skip table*: a symbol with that index is 0 and costs nothing.
        offsets: ``[T]``, the quotient of entry 0, such that all entries fit int16.
        shifts: ``[T]``, 0 … 12: the number b of low bits that are written as they are. The quotient of a
            symbol x is ``(x + (1 << (b - 1))) >> b`` if b > 0, else x.

    A quotient outside the table takes the escape entry and a self-delimiting code in a section of its own, so
    every int16 symbol can be coded with every table except a skip table. Offset and shift of a skip table are
    ignored.

    The arrays are kept, read-only, as attributes of the same names.

    Raises:
        ValueError: an array has the wrong shape or type, or a row breaks a rule above.
        NativeLibraryError: the native coder is not built.
    """

    def __init__(
        self,
        frequencies: npt.ArrayLike,
        sizes: npt.ArrayLike,
        offsets: npt.ArrayLike,
        shifts: npt.ArrayLike,
    ) -> None:
        self.frequencies = _integers(frequencies, "frequencies", np.int32, 2)
        self.sizes = _integers(sizes, "sizes", np.int32, 1)
        self.offsets = _integers(offsets, "offsets", np.int32, 1)
        self.shifts = _integers(shifts, "shifts", np.uint8, 1)
        self._native = require_C().RansTables(self.frequencies, self.sizes, self.offsets, self.shifts)
        for array in (self.frequencies, self.sizes, self.offsets, self.shifts):
            array.flags.writeable = False
        self._copies: dict[torch.device, torch.Tensor] = {}

    def __len__(self) -> int:
        return len(self.sizes)

    @cached_property
    def tensor(self) -> torch.Tensor:
        """The whole set as one int32 tensor, for :mod:`aicr_ext.ops.rans`: the shape of ``frequencies``, then the four
        arrays."""
        arrays = (self.frequencies.shape, self.frequencies, self.sizes, self.offsets, self.shifts)
        return torch.from_numpy(np.concatenate([np.ravel(array).astype(np.int32) for array in arrays]))

    def on(self, device: torch.device) -> torch.Tensor:
        """:attr:`tensor` on a device; the first call copies it there."""
        if device.type == "cpu":
            return self.tensor
        if device not in self._copies:
            self._copies[device] = self.tensor.to(device)
        return self._copies[device]

    def digest(self) -> bytes:
        """SHA-256 of the numbers of :attr:`tensor`, little-endian.

        Two sets with one digest code alike. Entries past a row's size count too, so keep them 0.
        """
        return hashlib.sha256(self.tensor.numpy().astype("<i4").tobytes()).digest()


class Encoder:
    """Codes segments of symbols into one stream.

    Args:
        lanes: 8 or 32 interleaved coders; ``None`` takes 8 for less than 32 KiB of words and 32 otherwise. What a
            stream costs beside its payload is about 30 bytes with 8 lanes and 100 with 32.

    One encoder serves one thread at a time. Symbols are copied.
    """

    def __init__(self, lanes: int | None = None) -> None:
        self._native = require_C().RansEncoder(0 if lanes is None else lanes)

    def push(self, symbols: np.ndarray | torch.Tensor, index: np.ndarray | torch.Tensor, tables: TableSet) -> None:
        """Append a segment, in the order in which it will be decoded.

        Args:
            symbols: ``[n]`` int16, any values; 0 where the table is a skip table. An array or a tensor on the
                CPU, like ``index``.
            index: ``[n]`` uint8, the table of each symbol.
            tables: may differ from segment to segment.

        Raises:
            ValueError: wrong type or length, an index without a table, a symbol other than 0 on a skip table.
                The encoder is then as it was before the call.
        """
        symbols = _vector(symbols, "symbols", np.int16)
        index = _vector(index, "index", np.uint8)
        if len(symbols) != len(index):
            raise ValueError(f"symbols and index must have one length, got {len(symbols)} and {len(index)}")
        self._native.push(symbols, index, tables._native)

    def finish(self) -> bytes:
        """The stream of everything pushed so far. The same pushes always give the same bytes."""
        return self._native.finish()


class Decoder:
    """Decodes a stream segment by segment, in the order and sizes in which it was pushed.

    Args:
        data: the bytes of :meth:`Encoder.finish`, and no more. They are copied.

    Raises:
        FormatError: a header field holds a value no encoder writes.
        TruncatedError: the data ends before the sections do that the header names.

    One decoder serves one thread at a time.
    """

    def __init__(self, data: bytes | bytearray | memoryview) -> None:
        self._native = require_C().RansDecoder(memoryview(data).cast("B"))

    def pop(
        self,
        index: np.ndarray | torch.Tensor,
        tables: TableSet,
        out: np.ndarray | torch.Tensor | None = None,
    ) -> np.ndarray:
        """Decode the next segment: ``[n]`` uint8 table indices in, ``[n]`` int16 symbols out.

        The symbols of a damaged stream are meaningless until :meth:`finish` has passed.

        Args:
            index: array or tensor on the CPU. Other threads must leave it alone during the call.
            tables: those of the segment.
            out: array or tensor on the CPU, ``[n]`` int16, which the symbols are written to; ``None`` makes a
                new array.

        Returns:
            the symbols, as an array; with ``out``, on its memory.

        Raises:
            ValueError: ``index`` or ``out`` has the wrong type or length, or ``index`` names a table that is
                not there.
            TruncatedError: the stream ends before the segment does.
            FormatError: an escape or symbol that no encoder writes, or a stream that has failed before.
        """
        index = _vector(index, "index", np.uint8)
        symbols = np.empty(len(index), np.int16) if out is None else _vector(out, "out", np.int16)
        if len(symbols) != len(index):
            raise ValueError(f"out and index must have one length, got {len(symbols)} and {len(index)}")
        self._native.pop(index, tables._native, symbols)
        return symbols

    def finish(self) -> None:
        """Check that the stream ends where the last segment did and that its symbols are those that were
        pushed.

        Raises:
            TruncatedError: something is left over.
            ChecksumError: the lanes do not end in states that say the CRC-32C of all symbols.
            FormatError: a :meth:`pop` has failed before.
        """
        self._native.finish()
