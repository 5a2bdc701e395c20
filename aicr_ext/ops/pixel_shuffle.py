"""Pixel shuffles that leave maps in their layout, or in the one asked for.

Only on a CPU do torch's own keep a channels-last map so. Elsewhere the result is NCHW, and so is every sum of a
residual block behind it, while the convolutions of the block want channels-last and copy. Here it is one copy.

On a CPU torch's pixel_unshuffle of a channels-last map takes two to four times as long as a copy for each of the few
offsets. And copies between the layouts move one value at a time, although several stay beside each other: these are
moved as one.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import forward_ad

from .layout import preferred_layout
from .pointwise import is_traced

__all__ = ["pixel_shuffle", "pixel_unshuffle"]

_MANY_VALUES = 1 << 14  # of a map; with fewer, the calls cost more than the copies


def pixel_shuffle(x: Tensor, factor: int, layout: torch.memory_format | None = None) -> Tensor:
    """:func:`torch.nn.functional.pixel_shuffle` of (B, C·factor², H, W), in the memory layout of x or in another one.

    A picture, of few channels, is copied much faster to NCHW.
    """
    if _is_torchs(x, layout):
        return F.pixel_shuffle(x, factor)
    b, c, h, w = x.shape
    c //= factor**2
    t = x.unflatten(1, (c, factor, factor))
    if (layout or preferred_layout(x)) == torch.channels_last:
        return t.permute(0, 4, 2, 5, 3, 1).reshape(b, h * factor, w * factor, c).permute(0, 3, 1, 2)
    t = _of_runs(t.permute(0, 1, 4, 2, 5, 3))
    return _of(x.dtype, t.reshape(b, c, h * factor, w * t.shape[-1]))


def pixel_unshuffle(x: Tensor, factor: int, layout: torch.memory_format | None = None) -> Tensor:
    """:func:`torch.nn.functional.pixel_unshuffle` of (B, C, H·factor, W·factor), in the memory layout of x or another.

    A picture in NCHW is copied much faster to channels-last.
    """
    if _is_torchs(x, layout):
        return _of_offsets(x, factor) if _goes_by_offsets(x, factor) else F.pixel_unshuffle(x, factor)
    b, c, h, w = x.shape
    t = x.unflatten(3, (-1, factor)).unflatten(2, (-1, factor))
    h, w, c = h // factor, w // factor, c * factor**2
    if (layout or preferred_layout(x)) == torch.channels_last:
        t = _of_runs(t.permute(0, 2, 4, 1, 3, 5))
        return _of(x.dtype, t.reshape(b, h, w, c // factor * t.shape[-1])).permute(0, 3, 1, 2)
    return t.permute(0, 1, 3, 5, 2, 4).reshape(b, c, h, w)


def _of_runs(t: Tensor) -> Tensor:
    """t with elements of 16 or 8 bytes, if so many of its last axis lie side by side; otherwise t itself."""
    if t.device.type != "cpu" or not t.numel() or torch.is_grad_enabled() or is_traced(t):
        return t
    if forward_ad._current_level >= 0 or t.stride(-1) != 1 or t.data_ptr() % 8:
        return t
    for dtype in (torch.complex128, torch.complex64):
        values = dtype.itemsize // t.element_size()
        steps = (t.shape[-1], t.storage_offset(), *t.stride()[:-1])
        if values > 1 and all(step % values == 0 for step in steps):
            return t.view(dtype)
    return t


def _of(dtype: torch.dtype, t: Tensor) -> Tensor:
    return t if t.dtype == dtype else t.view(dtype)


def _is_torchs(x: Tensor, layout: torch.memory_format | None) -> bool:
    """Whether torch's own function leaves the wanted layout; of a graph for a CPU no layout is wanted."""
    if x.dim() != 4:
        return True
    here, on_cpu = preferred_layout(x), x.device.type == "cpu"
    if layout in (None, here):
        return on_cpu or here == torch.contiguous_format
    return on_cpu and is_traced(x)


def _goes_by_offsets(x: Tensor, factor: int) -> bool:
    """Whether one copy per offset is faster than torch's function; to differentiate them would take longer."""
    if x.dim() != 4 or x.device.type != "cpu" or not 2 <= factor <= 3 or is_traced(x) or x.numel() < _MANY_VALUES:
        return False
    if (torch.is_grad_enabled() and x.requires_grad) or forward_ad._current_level >= 0:
        return False
    whole = x.shape[2] % factor == 0 and x.shape[3] % factor == 0
    return whole and preferred_layout(x) == torch.channels_last


def _of_offsets(x: Tensor, factor: int) -> Tensor:
    """A channels-last map to a channels-last one: what lies at each offset becomes the channels of a pixel."""
    pixels, steps = x.permute(0, 2, 3, 1), range(factor)
    offsets = [pixels[:, i::factor, j::factor] for i in steps for j in steps]
    return torch.stack(offsets, -1).flatten(3).permute(0, 3, 1, 2)
