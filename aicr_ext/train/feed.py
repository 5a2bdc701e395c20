"""Batches in order: made in the loop, or ahead of it by worker processes."""

from __future__ import annotations

import itertools
import os
from collections import deque
from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from torch.utils.data import DataLoader, Dataset

from aicr_ext.train.data import Batch, Batches

__all__ = ["Feed", "Request"]

#: Batches that each worker keeps ready.
_AHEAD = 2


class Request(NamedTuple):
    """Which rows of which batch, of how many rows in all processes together, and the side of their patches."""

    number: int
    rows: range
    count: int
    side: int


class Feed:
    """An iterator of (request, batch) from number ``first`` on, the same whatever the number of workers.

    Args:
        batches: makes them.
        request: from a number to what shall be made; called up to ``2 * workers`` batches ahead.
        first: number of the first batch.
        workers: processes that make batches; 0 makes each when it is asked for.
        device: for CUDA the batches lie in pinned memory.
    """

    def __init__(
        self, batches: Batches, request: Callable[[int], Request], first: int, workers: int, device: torch.device
    ) -> None:
        self._request, self._first = request, first
        self._asked: deque[Request] = deque()
        self._made = iter(
            DataLoader(
                _Made(batches),
                batch_size=None,
                sampler=_Lazy(self._requests),
                num_workers=workers,
                pin_memory=device.type == "cuda",
                prefetch_factor=_AHEAD if workers else None,
                # forked, so that all share the decoded photographs
                multiprocessing_context="fork" if workers else None,
                worker_init_fn=_leave_group,
                generator=torch.Generator().manual_seed(0),  # the global one belongs to the model
            )
        )

    def __next__(self) -> tuple[Request, Batch]:
        batch = next(self._made)
        return self._asked.popleft(), batch

    def close(self) -> None:
        """Ends the workers."""
        self._made = iter(())

    def _requests(self) -> Iterator[Request]:
        for number in itertools.count(self._first):
            self._asked.append(self._request(number))
            yield self._asked[-1]


class _Made(Dataset):
    def __init__(self, batches: Batches) -> None:
        self.batches = batches

    def __getitem__(self, request: Request) -> Batch:
        return self.batches.make(request.number, request.rows, request.side)


class _Lazy:
    """An iterable of what a generator function yields, each at the moment it is needed."""

    def __init__(self, generate: Callable[[], Iterator[Request]]) -> None:
        self._generate = generate

    def __iter__(self) -> Iterator[Request]:
        return self._generate()


def _leave_group(_: int) -> None:
    """Ctrl-C goes to a whole process group; the loop decides what it means, and still needs its batches then."""
    os.setpgrp()
