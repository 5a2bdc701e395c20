"""Layouts, views and the rule of accuracy that the tests of the operators share."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
import torch

from aicr_ext import _native
from aicr_ext.ops import strips

LAYOUTS = {"nchw": torch.contiguous_format, "channels_last": torch.channels_last}
#: Views of (3, 16, 12, 14) that are not dense.
VIEWS = [
    lambda t: t[:, :, 2:9],
    lambda t: t[..., 1::2],
    lambda t: t[:, 1 : 1 + t.shape[1] // 4 * 2],
    lambda t: t.transpose(2, 3),
    lambda t: t[:1].expand(3, -1, -1, -1),
]

requires_ops = pytest.mark.skipif(not _native.HAS_OPS, reason="the native operators are not built")


def without_avx512_for_torch(program: str) -> str:
    """What a Python program prints where torch, and what follows it, may not use AVX-512; run beside the tests."""
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "ATEN_CPU_CAPABILITY": "avx2"},
        cwd=os.path.dirname(__file__),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def cut_into_strips(monkeypatch, values=1):
    """Blocks take strips of so many values, of no more rows than they have at least without what is computed twice."""
    monkeypatch.setattr(strips, "STRIP_VALUES", values)
    monkeypatch.setattr(strips, "ROWS_OF_REACH", 1)


def with_threads(call: Callable[[], object], counts: tuple[int, ...] = (1, 1, 2, 3)) -> list:
    """What a call gives with each of these numbers of threads."""
    before, results = torch.get_num_threads(), []
    try:
        for count in counts:
            torch.set_num_threads(count)
            results.append(call())
    finally:
        torch.set_num_threads(before)
    return results


def assert_same_bits(results):
    """All results, each a tensor or several, are the first one."""
    first, *others = [(result,) if isinstance(result, torch.Tensor) else result for result in results]
    for other in others:
        assert all(torch.equal(a, b) for a, b in zip(first, other, strict=True))


def assert_no_worse(out, eager, exact, rounding=0.0):
    """At most twice the error of eager PyTorch in the same dtype, against float64, plus a few last bits.

    ``rounding`` is the relative error of what was rounded to a dtype lower than that of the result on the way to it.
    """
    assert out.shape == exact.shape
    if exact.numel():
        allowed = 2 * (eager.double() - exact).abs().max().item()
        scale = exact.abs().max().item()
        assert (out.double() - exact).abs().max().item() <= allowed + max(
            4 * torch.finfo(out.dtype).eps, rounding
        ) * scale


@contextmanager
def poisoned_memory() -> Iterator[None]:
    """Within it torch gives out memory full of NaN, to operators too: an element that none writes shows."""
    before = torch.are_deterministic_algorithms_enabled(), torch.utils.deterministic.fill_uninitialized_memory
    torch.use_deterministic_algorithms(True)
    torch.utils.deterministic.fill_uninitialized_memory = True
    try:
        assert torch.empty(5).isnan().all()
        yield
    finally:
        torch.use_deterministic_algorithms(before[0])
        torch.utils.deterministic.fill_uninitialized_memory = before[1]


#: What a depthwise convolution refuses: changes of (x (1, 4, 6, 7), weight (4, 1, 3, 3), bias (4,)), and the message.
BAD_DEPTHWISE_ARGUMENTS = [
    ({0: torch.zeros(4, 6, 7)}, r"x must be \(B, C, H, W\), got 3"),
    ({1: torch.zeros(4, 1, 3, 5)}, r"weight must have the shape \(4, 1, 3, 3\), got 4 dimension\(s\) of other"),
    ({1: torch.zeros(4, 1, 3, 3).half()}, "weight must be float32 or of the dtype of x, got Half"),
    ({2: torch.zeros(5)}, r"bias must have the shape \(4,\), got 1 dimension\(s\) of another size"),
    ({0: torch.zeros(1, 4, 6, 7).int(), 2: None}, "depthwise_conv3x3"),
]


def refuses_depthwise(operator: Callable[..., object], change: dict[int, object], message: str) -> None:
    args = [torch.zeros(1, 4, 6, 7), torch.zeros(4, 1, 3, 3), torch.zeros(4)]
    for place, value in change.items():
        args[place] = value
    with pytest.raises(RuntimeError, match=message):
        operator(*args)
