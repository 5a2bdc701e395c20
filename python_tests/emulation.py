"""The kernels of CUDA on the host: the library ``_emulated`` and what it can be asked (docs/cuda.md).

Importing this loads it. The operators are then in ``torch.ops.aicr_ext_emulated`` and take CPU tensors.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from torch import Tensor

from aicr_ext import _native

#: Orders in which the threads of a block take turns; 0: as they are numbered.
SEEDS = (0, 1, 2)


def _find() -> Path | None:
    """``AICR_EMULATED`` names the library, if not the one that was built into the environment is to be tested."""
    named = os.environ.get("AICR_EMULATED")
    if named:
        return Path(named).resolve(strict=True)
    folder = _native.native_status()["_C"]["path"]
    path = Path(folder).parent / "_emulated.so" if folder else None
    return path if path is not None and path.exists() else None


LIBRARY = _find()
requires_emulation = pytest.mark.skipif(LIBRARY is None, reason="built without AICR_EMULATION")

if LIBRARY is not None:
    torch.ops.load_library(str(LIBRARY))
    _library = ctypes.CDLL(str(LIBRARY))
    _library.aicr_emulation_seed.argtypes = [ctypes.c_uint64]
    _library.aicr_emulation_launches.restype = ctypes.c_char_p
    _library.aicr_emulation_self_test.argtypes = [ctypes.c_char_p, ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p]
    _library.aicr_emulation_self_test.restype = ctypes.c_char_p


def set_seed(seed: int) -> None:
    """In which order the threads of a block take turns from now on; see :data:`SEEDS`."""
    _library.aicr_emulation_seed(seed)


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Within it threads take turns in the order of this number."""
    set_seed(seed)
    try:
        yield
    finally:
        set_seed(int(os.environ.get("AICR_EMULATION_SEED", 1)))


def launches() -> dict[str, int]:
    """How often each kernel was launched since the library was loaded."""
    lines = _library.aicr_emulation_launches().decode().splitlines()
    return {name: int(count) for name, count in (line.split() for line in lines)}


def self_test(name: str, variant: int = 0, given: Tensor | None = None, out: Tensor | None = None) -> str:
    """Runs a kernel of ``csrc/emulation/self_test.cu``; returns what was wrong, or nothing."""
    pointers = [t.data_ptr() if t is not None else None for t in (given, out)]
    return _library.aicr_emulation_self_test(name.encode(), variant, *pointers).decode()


def emulated(name: str):
    """The operator of that name, whose kernels of CUDA run on the host."""
    return getattr(torch.ops.aicr_ext_emulated, name)


class Operators:
    """The emulated operators by their names."""

    def __getattr__(self, name):
        return emulated(name)


CUDA = Operators()
