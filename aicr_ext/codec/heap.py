"""What the allocator of the C library is told before pictures pass through networks on a CPU."""

from __future__ import annotations

from functools import cache

import torch

__all__ = ["keep_freed_blocks"]

#: glibc learns from blocks of less than 32 MiB.
_LARGEST = 31 << 20


@cache
def keep_freed_blocks() -> None:
    """Has glibc keep freed blocks of up to 31 MiB for the next ones, at most 62 MiB of them at the end of its heap.

    At first it gives every block above 128 KiB pages of its own, and each comes zeroed from the system again: thousands
    of page faults for every small picture, some 10 % of the time. Once a larger block has been freed it keeps all up to
    that size in its heap (``M_MMAP_THRESHOLD`` in mallopt(3)), so one is, which nothing has touched. Other allocators,
    and limits set by the environment, stay as they are.
    """
    torch.empty(_LARGEST, dtype=torch.uint8, device="cpu")
