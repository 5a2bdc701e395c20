"""Which operators run natively here, and the switch that turns them off."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from .. import _native

__all__ = ["has_kernel", "is_exporting", "plain_torch"]

_enabled = True
_coding_enabled = True  # those of the entropy path


def is_exporting() -> bool:
    """Whether ``torch.export`` is at work.

    :func:`torch.compiler.is_exporting` reads the same, but is always true in what ``torch.compile`` of torch 2.11
    traces.
    """
    return torch.compiler._is_exporting_flag


def has_kernel(device: str, *, coding: bool = False) -> bool:
    """Whether operators run natively on a device of this type; ``coding``: those of the entropy path.

    Not while ``torch.onnx.export`` looks, for the graph must run where this package is not.
    """
    if not (_coding_enabled if coding else _enabled) or (is_exporting() and torch.onnx.is_in_onnx_export()):
        return False
    if device == "cuda":
        return _native.HAS_CUDA_OPS
    return _native.HAS_OPS and device in ("cpu", "meta")


@contextmanager
def plain_torch(*, coding: bool = True) -> Iterator[None]:
    """Within it every operator runs through its plain-torch definition, in all threads: for comparisons.

    ``coding`` False: but for those of the entropy path, whose definitions compute with integers in float64, as nobody
    would who had no kernels for them.
    """
    global _enabled, _coding_enabled
    before, _enabled, _coding_enabled = (_enabled, _coding_enabled), False, _coding_enabled and not coding
    try:
        yield
    finally:
        _enabled, _coding_enabled = before
