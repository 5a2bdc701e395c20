"""Operators that compute in the dtype of their arguments, under autocast as without it."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import wraps
from typing import ParamSpec, TypeVar

import torch
from torch import Tensor

__all__ = ["autocast_dtype", "has_autocast", "outside_autocast", "without_autocast"]

P = ParamSpec("P")
R = TypeVar("R")

# Asked once, because torch.compile of torch 2.11 cannot look.
_HAVE_AUTOCAST = frozenset(
    kind for kind in ("cpu", "cuda", "hpu", "mps", "mtia", "xla", "xpu") if torch.amp.is_autocast_available(kind)
)


def has_autocast(device: str) -> bool:
    """Whether a device of this type has autocast; ``"meta"`` has not."""
    return device in _HAVE_AUTOCAST


def autocast_dtype(device: str) -> torch.dtype | None:
    """What autocast computes in on this type of device; None where it is off."""
    return torch.get_autocast_dtype(device) if has_autocast(device) and torch.is_autocast_enabled(device) else None


def without_autocast(device: str) -> AbstractContextManager[object]:
    """A context in which autocast is off. Not a switch at all times: graphs of calls without autocast would hold it."""
    return nullcontext() if autocast_dtype(device) is None else torch.autocast(device, enabled=False)


def outside_autocast(function: Callable[P, R]) -> Callable[P, R]:
    """The function with autocast off on the device of its first argument that is a tensor."""

    @wraps(function)
    def call(*arguments: P.args, **options: P.kwargs) -> R:
        device = next(a.device.type for a in (*arguments, *options.values()) if isinstance(a, Tensor))
        with without_autocast(device):
            return function(*arguments, **options)

    return call
