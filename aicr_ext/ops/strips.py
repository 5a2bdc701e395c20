"""Maps worked through in strips of rows, so that what is computed in between stays in the processor's cache.

The tensors between the operations of a block are up to six times as large as the map itself. Convolutions read the
rows they need beyond a strip.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from .block_output import OutputProjection

__all__ = ["STRIP_VALUES", "can_be_written_to", "over_strips", "shared_rows", "strips"]

#: Values of the widest intermediate tensor of one strip. Fixed, so that a shape always gives the same strips.
STRIP_VALUES = 1 << 21
#: Rows that a strip has at least, for each row that it reaches beyond on either side. What is computed of these is
#: computed twice, but for projections by a kernel that writes into rows (``StripProjection`` in block_paths.py).
ROWS_OF_REACH = 16


def strips(x: Tensor, widest: int, reach: int) -> Iterator[tuple[Tensor, slice, slice]]:
    """Row strips of (B, C, H, W): the rows with ``reach`` more on each side, which of them to keep, and where.

    ``widest`` is the number of channels of the widest intermediate tensor. One strip when ``x`` needs gradients
    (their graph keeps every intermediate anyway), on a GPU, for small maps, and in a graph that is to serve every size.
    """
    height, width = x.shape[2:]
    of_any_size = any(isinstance(size, torch.SymInt) for size in x.shape)
    if torch.is_grad_enabled() or x.device.type != "cpu" or of_any_size:
        yield x, slice(None), slice(None)
        return
    rows = max(8, ROWS_OF_REACH * reach, STRIP_VALUES // max(1, x.shape[0] * width * widest))
    for start in range(0, max(1, height), rows):  # an empty map is one strip too
        stop = min(start + rows, height)
        first, last = max(start - reach, 0), min(stop + reach, height)
        yield x[:, :, first:last], slice(start - first, stop - first), slice(start, stop)


def shared_rows(block: Tensor, keep: slice) -> int:
    """How many rows of a strip are the last ones of the strip before it."""
    if not keep.start:
        return 0
    return keep.start + min(keep.start, block.shape[2] - keep.start)


def over_strips(
    x: Tensor,
    widest: int,
    reach: int,
    branch: Callable[[Tensor, slice], Tensor],
    output: OutputProjection,
    residual: bool = True,
    overwrite: bool = False,
) -> Tensor:
    """x + output(branch(x)), or without x, strip by strip; ``branch`` gets a strip with its margin and the rows to
    return.

    ``overwrite``: the sum may take the place of x, if it has its dtype.
    """
    parts = strips(x, widest, reach)
    block, keep, place = next(parts)
    whole, height = place.stop in (None, x.shape[2]), place.stop
    t = branch(block, keep)
    fits = torch.promote_types(x.dtype, t.dtype) == x.dtype
    if residual and overwrite and fits and (whole or reach <= height):
        return add_to_strips(x, t, place, parts, branch, output)

    def added(block: Tensor, keep: slice) -> Tensor | None:
        return block[:, :, keep] if residual else None

    size = (x.shape[0], output.channels, *x.shape[2:])
    if output.writes(t, added(block, keep)):
        out = torch.empty(size, dtype=t.dtype, device=x.device, memory_format=torch.channels_last)
        output(t, added(block, keep), out[:, :, place])
    else:
        first = output(t, added(block, keep))
        if whole:
            return first
        dense = first.is_contiguous(memory_format=torch.channels_last)
        layout = torch.channels_last if dense else torch.contiguous_format
        out = torch.empty(size, dtype=first.dtype, device=first.device, memory_format=layout)
        out[:, :, place] = first
    for block, keep, place in parts:
        output(branch(block, keep), added(block, keep), out[:, :, place])
    return out


def add_to_strips(
    x: Tensor,
    t: Tensor,
    place: slice,
    parts: Iterator[tuple[Tensor, slice, slice]],
    branch: Callable[[Tensor, slice], Tensor],
    output: OutputProjection,
) -> Tensor:
    """Adds the branch to x itself: ``t`` belongs to ``place``, what follows comes from ``parts``.

    A strip changes only when the one behind it has been computed, which sees its last rows as they were. Results in
    memory of their own would cost more than the sums: memory that is new to a process comes in pages of zeros.
    """
    rows = x[:, :, place]
    for block, keep, place in parts:
        following = branch(block, keep)
        output(t, rows, rows)
        t, rows = following, x[:, :, place]
    output(t, rows, rows)
    return x


def can_be_written_to(x: Tensor) -> bool:
    """Not so for tensors of inference mode outside of it, and where several elements share a place."""
    shared = any(stride == 0 and size > 1 for stride, size in zip(x.stride(), x.shape, strict=True))
    return not shared and (torch.is_inference_mode_enabled() or not x.is_inference())
