"""Which operators run natively here, and the switch that turns them off."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from .. import _native

__all__ = ["has_kernel", "is_exporting", "plain_torch"]

_enabled = True


def is_exporting() -> bool:
    """Whether ``torch.export`` is at work.

    :func:`torch.compiler.is_exporting` reads the same, but is always true in what ``torch.compile`` of torch 2.11
    traces.
    """
    return torch.compiler._is_exporting_flag


def has_kernel(device: str) -> bool:
    """Whether operators run natively on a device of this type.

    Not while ``torch.onnx.export`` looks, for the graph must run where this package is not.
    """
    if not _enabled or (is_exporting() and torch.onnx.is_in_onnx_export()):
        return False
    if device == "cuda":
        return _native.HAS_CUDA_OPS
    return _native.HAS_OPS and device in ("cpu", "meta")


@contextmanager
def plain_torch() -> Iterator[None]:
    """Within it every operator runs through its plain-torch definition, in all threads: for comparisons."""
    global _enabled
    before, _enabled = _enabled, False
    try:
        yield
    finally:
        _enabled = before
