"""Files of earlier versions decode to the same symbols, and to the same picture up to rounding."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
import torch
from golden_models import CUT, FOLDER, MODELS, SIZES, decoded_latent, thumbnail

from aicr_ext.codec.checkpoint import load_model
from aicr_ext.codec.codec import Codec
from aicr_ext.codec.container import read_info
from aicr_ext.model.config import CONFIGS
from aicr_ext.ops.kernels import plain_torch


@pytest.fixture(params=MODELS, ids=lambda config: config.name)
def golden(request, monkeypatch):
    """A codec with committed weights, and the arrays of its files."""
    monkeypatch.setitem(CONFIGS, request.param.name, request.param)
    codec = Codec(load_model(FOLDER / f"{request.param.name}.safetensors"))
    with np.load(FOLDER / f"{request.param.name}.npz") as arrays:
        yield codec, dict(arrays)


def same_symbols(codec: Codec, arrays: dict[str, np.ndarray], name: str) -> bool:
    latent = decoded_latent(codec, arrays[f"{name}_data"].tobytes())
    return hashlib.sha256(latent.numpy().tobytes()).digest() == arrays[f"{name}_latent"].tobytes()


def test_golden_files_decode(golden):
    codec, arrays = golden
    names = [f"{width}x{height}_{quality}" for width, height, quality in SIZES]
    assert len(arrays) == 3 * len(names)
    for name, (width, height, _) in zip(names, SIZES, strict=True):
        assert same_symbols(codec, arrays, name), name
        picture = codec.decompress(arrays[f"{name}_data"].tobytes())
        assert picture.shape == (3, height, width)
        expected = torch.from_numpy(arrays[f"{name}_thumbnail"])
        torch.testing.assert_close(thumbnail(picture), expected, rtol=0, atol=1e-3)
        assert (read_info(arrays[f"{name}_data"].tobytes()).streams > 1) == (name in CUT)


def test_golden_files_are_worth_decoding(golden):
    _, arrays = golden
    sizes = {name: len(arrays[f"{name}_data"]) for name in ("100x60_0", "100x60_63", "256x192_40")}
    assert sizes["100x60_0"] < sizes["100x60_63"] < sizes["256x192_40"]
    assert sizes["256x192_40"] > 1000
    assert arrays["256x192_40_thumbnail"].std() > 0.003


def test_plain_torch_decodes_them_too(golden):
    codec, arrays = golden
    with plain_torch():
        for name in ("100x60_31", *CUT):
            assert same_symbols(codec, arrays, name), name


def test_new_files_decode_to_the_same_symbols_with_and_without_kernels(golden):
    codec, arrays = golden
    picture = codec.decompress(arrays["100x60_63_data"].tobytes())
    data = codec.compress(picture, quality=63)
    native = decoded_latent(codec, data)
    with plain_torch():
        assert torch.equal(decoded_latent(codec, data), native)
    assert native.abs().max() > 0
