"""What the machine can do: bytes copied and products computed per second, measured now."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import torch

from aicr_ext.ops.pointwise import pointwise_convolution

__all__ = ["Roofs", "measure_roofs"]

#: Sizes of the copies in bytes, source and target together: those of caches and of memory.
COPIES = tuple(1 << n for n in (18, 20, 22, 24, 26, 28))

#: Side of the matrices that are multiplied.
_SIDE = {"cpu": 1024, "cuda": 8192}

#: Channels and side of the map that is convolved, channels-last.
_CHANNELS, _MAP = 256, 96


@dataclass(frozen=True)
class Roofs:
    """The ceilings of a machine.

    Attributes:
        device: ``"cpu"`` or ``"cuda"``.
        copy: bytes moved per second by copies of each of :data:`COPIES`, read and written ones together.
        product: floating-point operations per second of a large matrix product, by name of the dtype; on a CPU of a
            1x1 convolution, if that is faster, for it may be another library's.
    """

    device: str
    copy: dict[int, float]
    product: dict[str, float]

    def bandwidth(self, size: int) -> float:
        """Bytes per second of the copy whose size is nearest, in proportion."""
        return self.copy[min(self.copy, key=lambda known: max(known, size + 1) / min(known, size + 1))]

    def seconds(self, size: int, operations: int, dtype: str) -> float:
        """The least time for so many bytes and operations, if one hides behind the other.

        0 where there are operations on numbers whose products were not measured.
        """
        if operations and dtype not in self.product:
            return 0.0
        return max(size / self.bandwidth(size), operations / self.product[dtype] if operations else 0.0)


def measure_roofs(device: str = "cpu", dtypes: tuple[str, ...] = ("float32", "bfloat16")) -> Roofs:
    """Measure them, in about two seconds.

    Args:
        device: ``"cpu"``, with as many threads as torch has, ``"cuda"`` or ``"cuda:N"``.
        dtypes: of the matrix products.
    """
    kind = torch.device(device).type
    copies = {}
    for size in COPIES:
        source = torch.ones(size // 8, device=device)
        target = torch.empty_like(source)
        copies[size] = size / _fastest(lambda s=source, t=target: t.copy_(s), kind)
    products = {}
    for name in dtypes:
        dtype = getattr(torch, name)
        a = torch.ones(_SIDE[kind], _SIDE[kind], device=device, dtype=dtype)
        products[name] = 2 * _SIDE[kind] ** 3 / _fastest(lambda a=a: a @ a, kind)
        if kind == "cpu":
            x = torch.ones(1, _MAP, _MAP, _CHANNELS, dtype=dtype).permute(0, 3, 1, 2)
            weight = torch.ones(_CHANNELS, _CHANNELS, 1, 1, dtype=dtype)
            took = _fastest(lambda x=x, weight=weight: pointwise_convolution(x, weight), kind)
            products[name] = max(products[name], 2 * x.numel() * _CHANNELS / took)
    return Roofs(kind, copies, products)


def _fastest(call: Callable[[], object], kind: str, seconds: float = 0.2) -> float:
    """The shortest of the runs that this time allows; five at least, after one to warm up."""
    once = _between_events if kind == "cuda" else _passed
    times: list[float] = []
    call()
    end = time.perf_counter() + seconds
    while len(times) < 5 or time.perf_counter() < end:
        times.append(once(call))
    return min(times)


def _passed(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def _between_events(call: Callable[[], object], times: int = 10) -> float:
    """Seconds on the device of one of several calls in a row: a single one could be over before it is timed."""
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    start.record()
    for _ in range(times):
        call()
    end.record()
    end.synchronize()
    return start.elapsed_time(end) / 1e3 / times
