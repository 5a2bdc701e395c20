"""Operators that compute in the dtype of their arguments, under autocast as without it."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import ParamSpec, TypeVar

import torch
from torch import Tensor

__all__ = ["outside_autocast"]

P = ParamSpec("P")
R = TypeVar("R")


def outside_autocast(function: Callable[P, R]) -> Callable[P, R]:
    """The function with autocast off on the device of its first argument that is a tensor."""

    @wraps(function)
    def call(*arguments: P.args, **options: P.kwargs) -> R:
        device = next(a.device.type for a in (*arguments, *options.values()) if isinstance(a, Tensor))
        # Not at all times off: graphs of calls without autocast would hold the switch.
        if not torch.amp.is_autocast_available(device) or not torch.is_autocast_enabled(device):
            return function(*arguments, **options)
        with torch.autocast(device, enabled=False):
            return function(*arguments, **options)

    return call
