"""Operators that compute in the dtype of their arguments, under autocast as without it."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import ParamSpec, TypeVar

import torch
from torch import Tensor

__all__ = ["has_autocast", "outside_autocast", "under_autocast"]

P = ParamSpec("P")
R = TypeVar("R")

# Asked once, because torch.compile of torch 2.11 cannot look.
_HAVE_AUTOCAST = frozenset(
    kind for kind in ("cpu", "cuda", "hpu", "mps", "mtia", "xla", "xpu") if torch.amp.is_autocast_available(kind)
)


def has_autocast(device: str) -> bool:
    """Whether a device of this type has autocast; ``"meta"`` has not."""
    return device in _HAVE_AUTOCAST


def under_autocast(device: str) -> bool:
    """Whether autocast is on for this type of device."""
    return has_autocast(device) and torch.is_autocast_enabled(device)


def outside_autocast(function: Callable[P, R]) -> Callable[P, R]:
    """The function with autocast off on the device of its first argument that is a tensor."""

    @wraps(function)
    def call(*arguments: P.args, **options: P.kwargs) -> R:
        device = next(a.device.type for a in (*arguments, *options.values()) if isinstance(a, Tensor))
        # Not at all times off: graphs of calls without autocast would hold the switch.
        if not under_autocast(device):
            return function(*arguments, **options)
        with torch.autocast(device, enabled=False):
            return function(*arguments, **options)

    return call
