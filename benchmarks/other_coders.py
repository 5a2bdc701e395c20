"""Other entropy coders, for ``benchmarks.coder`` to measure beside ours. None of them is a requirement.

They take part if they can be imported. Put them into an environment of their own, with the torch of this one,
and lend the benchmark its packages::

    python -m venv others
    others/bin/pip install torch==2.13.0 constriction torch_ans compressai
    PYTHONPATH=$(others/bin/python -c 'import site; print(site.getsitepackages()[0])') \\
        .venv/bin/python -m benchmarks.coder

All code the same symbols with the same Gaussians, each with its own integer tables of them, and each through the
Python interface it offers for that.
"""

from __future__ import annotations

import importlib.metadata
import math
from collections.abc import Iterator
from typing import Protocol

import numpy as np
import torch

from aicr_ext.codec.tables import gaussian_probabilities, gaussian_sigmas

__all__ = ["Coder", "other_coders"]


class Coder(Protocol):
    """What the benchmark asks of a coder: symbols int16 and table indices uint8 to bytes, and back."""

    name: str

    def encode(self, symbols: np.ndarray, index: np.ndarray) -> bytes: ...

    def decode(self, data: bytes, index: np.ndarray) -> np.ndarray: ...


class _Constriction:
    def __init__(self) -> None:
        import constriction

        self.name = f"constriction {importlib.metadata.version('constriction')}"
        self._coder = constriction.stream.stack.AnsCoder
        self._model = constriction.stream.model.QuantizedGaussian(-640, 640)
        self._sigmas = gaussian_sigmas()

    def encode(self, symbols: np.ndarray, index: np.ndarray) -> bytes:
        coder = self._coder()
        coder.encode_reverse(symbols.astype(np.int32), self._model, np.zeros(len(symbols)), self._sigmas[index])
        return coder.get_compressed().tobytes()

    def decode(self, data: bytes, index: np.ndarray) -> np.ndarray:
        coder = self._coder(np.frombuffer(data, np.uint32))
        return coder.decode(self._model, np.zeros(len(index)), self._sigmas[index]).astype(np.int16)


class _CompressAI:
    def __init__(self) -> None:
        # torchvision, which compressai imports, does not without the operators of its own library, and that
        # does not load beside every build of torch. None of them is needed here.
        if not hasattr(torch.ops.torchvision, "nms"):
            self._library = torch.library.Library("torchvision", "DEF")
            for name in ("nms", "qnms"):
                self._library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        from compressai.entropy_models import GaussianConditional

        self.name = f"compressai {importlib.metadata.version('compressai')}"
        self._model = GaussianConditional(gaussian_sigmas().tolist())
        self._model.update()

    def encode(self, symbols: np.ndarray, index: np.ndarray) -> bytes:
        values = torch.from_numpy(symbols).float()[None, None]
        return self._model.compress(values, torch.from_numpy(index).int()[None, None])[0]

    def decode(self, data: bytes, index: np.ndarray) -> np.ndarray:
        values = self._model.decompress([data], torch.from_numpy(index).int()[None, None])
        return values[0, 0].to(torch.int16).numpy()


class _TorchAns:
    def __init__(self) -> None:
        from torch_ans.utils import TorchANSInterface

        self.name = f"torch_ans {importlib.metadata.version('torch_ans')}, rans32_16, 32 interleaved"
        self._coder = TorchANSInterface(impl="rans32_16", freq_precision=15, num_interleaves=32, device="cpu")
        # Row by row, and without the far tails, which its escape takes: it gives every entry of a row at least
        # one slot, those past the row's end included.
        rows, offsets = [], []
        for sigma in gaussian_sigmas():
            p, first = gaussian_probabilities(sigma)
            reach = min(-first, math.ceil(4.3 * sigma) + 1)
            p = p[-first - reach : -first + reach + 1]
            p = torch.from_numpy(np.append(p, max(1 - p.sum(), 1e-9))).float()
            rows.append(self._coder._native.rans_pmf_to_quantized_cdf(p[None], 15)[0])
            offsets.append(-reach)
        cdfs = torch.zeros(len(rows), max(len(row) for row in rows), dtype=torch.int32)
        for cdf, row in zip(cdfs, rows, strict=True):
            cdf[: len(row)] = row
        sizes = torch.tensor([len(row) for row in rows], dtype=torch.int32)
        self._coder.set_cdfs(cdfs, sizes, torch.tensor(offsets, dtype=torch.int32))

    def encode(self, symbols: np.ndarray, index: np.ndarray) -> bytes:
        return self._coder.encode_with_indexes(
            torch.from_numpy(symbols).int()[None], torch.from_numpy(index).int()[None]
        )

    def decode(self, data: bytes, index: np.ndarray) -> np.ndarray:
        decoded = self._coder.decode_with_indexes(data, torch.from_numpy(index).int()[None])
        return decoded[0].to(torch.int16).numpy()


def other_coders() -> Iterator[Coder]:
    """Those that are installed; with a line about each that is not."""
    for make in (_Constriction, _CompressAI, _TorchAns):
        try:
            yield make()
        except (ImportError, RuntimeError) as error:
            print(f"not measured: {make.__name__.strip('_')} ({error})")
