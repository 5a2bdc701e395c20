"""Networks as CUDA graphs: what is recorded and kept, and that a recording gives what the function gives."""

from __future__ import annotations

from contextlib import contextmanager, nullcontext
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from pictures import smooth
from torch.utils._python_dispatch import TorchDispatchMode

import aicr_ext
from aicr_ext import _native
from aicr_ext.codec.graphs import GraphCache, capture_cuda


class Recording(TorchDispatchMode):
    """A graph on the CPU: keeps the operations of a function with their memory, and repeats them in it."""

    def __init__(self) -> None:
        super().__init__()
        self.operations: list[tuple] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        self.operations.append((func, args, kwargs or {}, result))
        return result

    def replay(self) -> None:
        for func, args, kwargs, result in self.operations:
            again = func(*args, **kwargs)
            for old, new in zip(*map(tensors, (result, again)), strict=True):
                if old.data_ptr() != new.data_ptr():
                    old.copy_(new)


def tensors(result: object) -> list[torch.Tensor]:
    return [r for r in (result if isinstance(result, (list, tuple)) else [result]) if isinstance(r, torch.Tensor)]


@pytest.fixture
def graphs_on_the_cpu(monkeypatch):
    """torch.cuda's part in a recording, played by :class:`Recording`."""
    stream = SimpleNamespace(wait_stream=lambda other: None)

    @contextmanager
    def record(graph, stream):
        with graph:
            yield

    for name, stand_in in (
        ("current_stream", lambda device: stream),
        ("Stream", lambda device: stream),
        ("stream", lambda stream: nullcontext()),
        ("CUDAGraph", Recording),
        ("graph", record),
    ):
        monkeypatch.setattr(torch.cuda, name, stand_in)


def test_each_shape_is_recorded_once_and_the_oldest_forgotten():
    made = []

    def capture(function, inputs):
        made.append(tuple(inputs[0].shape))
        return function

    cache = GraphCache(capture, most=2)
    draw = [torch.rand(n, 2) for n in (1, 2, 3)]
    for x in (*draw[:2], draw[0], draw[2], draw[0]):  # the third puts out the second, which was not used since
        assert torch.equal(cache("double", lambda x: 2 * x, x), 2 * x)
    assert made == [(1, 2), (2, 2), (3, 2)]
    cache("double", lambda x: 2 * x, draw[1])
    assert made[3:] == [(2, 2)]


def test_what_a_recording_stands_for():
    """Another name, shape, layout or dtype is another one; other values are not."""
    made = []
    cache = GraphCache(lambda function, inputs: made.append(None) or function)
    x, q = torch.rand(2, 4), torch.zeros(2)
    others = [("b", x, q), ("a", x.double(), q), ("a", torch.rand(4, 2).T, q), ("a", x[:1], q[:1])]
    for count, (name, *inputs) in enumerate([("a", x, q), *others], 1):
        cache(name, lambda x, q: x, *inputs)
        assert len(made) == count
    assert torch.equal(cache("a", lambda x, q: x, x + 1, q + 1), x + 1)
    assert len(made) == 5


def test_a_recording_gives_what_the_function_gives(graphs_on_the_cpu):
    weight = torch.rand(3, 3)

    def function(x: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
        return (x @ weight).relu_().mul_(scale)

    cache = GraphCache(capture_cuda)
    inputs = [(torch.randn(4, 3), torch.tensor(s)) for s in (1.0, 2.0, 3.0)]
    results = [cache("f", function, *given) for given in inputs]  # none may be overwritten by the next
    for given, result in zip(inputs, results, strict=True):
        assert torch.equal(result, function(*given))


def test_the_networks_can_be_recorded(graphs_on_the_cpu):
    """They repeat with other pictures and qualities: nothing is decided by values, nothing leaves its memory."""
    plain, recorded = aicr_ext.Codec(), aicr_ext.Codec()
    recorded._graphs = GraphCache(capture_cuda)
    picture = torch.from_numpy(np.array(smooth(48, 32))).permute(2, 0, 1)
    for x, quality in ((picture, 20), (255 - picture, 60), (picture.flip(1), 0)):
        data = plain.compress(x, quality=quality)
        assert recorded.compress(x, quality=quality) == data
        assert torch.equal(recorded.decompress(data), plain.decompress(data))
    found = [key[0] for key in recorded._graphs._recorded]
    assert sorted(found) == ["analysis", "analysis with synthesis", "synthesis"]  # with feedback, and at quality 0


def test_only_on_cuda():
    with pytest.raises(ValueError, match="cuda_graphs needs a codec on a CUDA device, got device 'cpu'"):
        aicr_ext.Codec(cuda_graphs=True)


@pytest.mark.gpu
@pytest.mark.skipif(not (torch.cuda.is_available() and _native.HAS_CUDA_OPS), reason="no GPU")
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_on_a_gpu(precision):
    plain, recorded = (aicr_ext.Codec(device="cuda", precision=precision, cuda_graphs=g) for g in (False, True))
    pictures = torch.stack([torch.from_numpy(np.array(smooth(160, 96))).permute(2, 0, 1)] * 3).cuda()
    pictures[1] = 255 - pictures[1]
    for batch, quality in ((pictures, 30), (pictures.flip(2), 60), (pictures[:1], 10), (pictures, 0)):
        files = recorded.compress(batch, quality=quality)
        for ours, theirs in zip(recorded.decompress(files), plain.decompress(files), strict=True):
            torch.testing.assert_close(ours, theirs, atol=0.02, rtol=0)
        sizes = [sum(map(len, c.compress(batch, quality=quality))) for c in (plain, recorded)]
        assert sizes[1] == pytest.approx(sizes[0], rel=0.02)
