"""The codec end to end, through the public functions and the weights in the package."""

from __future__ import annotations

import copy
import functools
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pictures import smooth
from PIL import Image

import aicr_ext
from aicr_ext import errors
from aicr_ext.codec import container
from aicr_ext.codec.checkpoint import export_weights, untrained
from aicr_ext.codec.rans import TableSet

PHOTO = Path(__file__).parent.parent / "samples" / "kodim23.png"


def tensor(width: int = 64, height: int = 48) -> torch.Tensor:
    """The smooth test picture as uint8 (3, H, W)."""
    return torch.from_numpy(np.array(smooth(width, height))).permute(2, 0, 1)


def psnr(a: torch.Tensor, b: torch.Tensor) -> float:
    return float(-10 * torch.log10((a - b).square().mean()))


@functools.cache
def shipped_codec() -> aicr_ext.Codec:
    return aicr_ext.Codec()


@pytest.fixture
def codec() -> aicr_ext.Codec:
    return shipped_codec()


@pytest.fixture(scope="module")
def photo() -> torch.Tensor:
    """A 256x192 part of the sample photograph, float in [0, 1]."""
    image = Image.open(PHOTO).convert("RGB").crop((200, 100, 456, 292))
    return torch.from_numpy(np.array(image)).permute(2, 0, 1).float() / 255


def test_more_quality_costs_bytes_and_gains_decibels(codec, photo):
    results = []
    for quality in (0, 21, 42, 63):
        data = codec.compress(photo, quality=quality)
        results.append((len(data), psnr(codec.decompress(data), photo)))
    assert results == sorted(results)
    assert results[0][1] > 25
    assert results[-1][1] > 32
    assert results[-1][0] < photo.numel() / 4


def test_codecs_of_one_module_understand_each_other(photo):
    """The first gives it the tables that it has not been exported with."""
    model = untrained("aicr-t-clean")
    first, second = aicr_ext.Codec(model), aicr_ext.Codec(model)
    assert first.weight_hash == second.weight_hash
    assert second.decompress(first.compress(photo)).shape == photo.shape


def test_copies_and_pickles_of_a_codec(codec, photo):
    data = codec.compress(photo)
    low = aicr_ext.Codec(codec.model, precision="bfloat16")
    for other in (copy.deepcopy(codec), pickle.loads(pickle.dumps(codec))):
        assert other.compress(photo) == data
        assert other.model is not codec.model
    assert copy.copy(low).precision == "bfloat16"


def test_the_default_device_plays_no_part(codec, photo):
    data = codec.compress(photo)
    with torch.device("meta"):
        assert codec.compress(photo) == data
        decoded = codec.decompress(data)
    assert torch.equal(decoded, codec.decompress(data))


def test_estimates_are_of_one_picture(codec, photo):
    assert codec.estimate_bits(photo[None]) == codec.estimate_bits(photo)
    with pytest.raises(ValueError, match="image must be one picture, got a batch of 2"):
        codec.estimate_bits(torch.stack([photo, photo]))


def test_a_path_may_be_the_name_of_a_model():
    assert aicr_ext.load_model(Path("aicr-t-clean")).config.name == "aicr-t-clean"


def test_better_than_jpeg_of_the_same_size(codec, photo, tmp_path):
    data = codec.compress(photo, quality=16)
    image = Image.fromarray((photo * 255).round().byte().permute(1, 2, 0).numpy())
    jpegs = []
    for quality in range(5, 96, 5):
        image.save(tmp_path / "x.jpg", quality=quality, optimize=True)
        if (tmp_path / "x.jpg").stat().st_size <= len(data):
            jpegs.append(torch.from_numpy(np.array(Image.open(tmp_path / "x.jpg"))).permute(2, 0, 1) / 255)
    best = max((psnr(j, photo) for j in jpegs), default=0.0)
    assert psnr(codec.decompress(data), photo) > best


def test_real_bytes_are_within_half_a_percent_of_the_estimate(codec, photo):
    whole = photo.repeat(1, 3, 3)[:, :512, :768]
    for quality in (20, 60):
        with torch.inference_mode():
            (streams,) = codec._encode_latents(codec.latent(whole, quality))
        assert sum(map(len, streams)) < 1.005 * codec.estimate_bits(whole, quality=quality) / 8 + 8


@pytest.mark.parametrize("size", [(1, 1), (1, 40), (15, 16), (17, 33), (64, 64), (65, 129)])
def test_any_size_round_trips(size):
    codec = aicr_ext.Codec("aicr-t-clean")  # weights that restore may find a drawn gradient in need of it
    x = tensor(*size).float() / 255
    out = codec.decompress(codec.compress(x, quality=63))
    assert out.shape == x.shape
    assert out.dtype == torch.float32
    assert out.min() >= 0
    assert out.max() <= 1
    assert psnr(out, x) > 20


@settings(deadline=None, max_examples=12)
@given(st.integers(1, 70), st.integers(1, 70), st.integers(0, 63), st.integers(0, 2**31))
def test_any_picture_round_trips_to_the_same_symbols(width, height, quality, seed):
    codec = shipped_codec()
    x = torch.rand(3, height, width, generator=torch.Generator().manual_seed(seed))
    data = codec.compress(x, quality=quality)
    assert data == codec.compress(x, quality=quality)
    assert codec.decompress(data).shape == x.shape


def test_a_picture_of_noise_at_the_extremes(codec):
    x = (torch.rand(3, 64, 64, generator=torch.Generator().manual_seed(3)) > 0.5).float()
    assert codec.decompress(codec.compress(x, quality=63)).shape == x.shape


def test_batch_equals_singles_and_runs_repeat(codec):
    batch = torch.stack([tensor().float() / 255, 1 - tensor().float() / 255, torch.rand(3, 48, 64)])
    together = codec.compress(batch, quality=40)
    assert together == [codec.compress(x, quality=40) for x in batch]
    assert together == codec.compress(batch, quality=40)
    decoded = codec.decompress(together)
    assert len(decoded) == 3
    assert all(torch.equal(a, codec.decompress(d)) for a, d in zip(decoded, together, strict=True))
    assert codec.compress(batch[:0]) == []
    assert len(codec.compress(batch[:1])) == 1


def test_every_input_kind_gives_the_same_bytes():
    x = tensor()
    data = aicr_ext.compress(x)
    assert aicr_ext.compress(x.float() / 255) == data
    assert aicr_ext.compress(x.double() / 255) == data
    assert aicr_ext.compress(x.permute(1, 2, 0).contiguous().numpy()) == data
    assert aicr_ext.compress(smooth()) == data
    assert aicr_ext.compress(x[None]) == [data]
    assert aicr_ext.compress(x.permute(1, 2, 0).contiguous().permute(2, 0, 1)) == data
    grey = smooth().convert("L")
    assert aicr_ext.compress(grey) == aicr_ext.compress(grey.convert("RGB"))


def test_a_decoded_picture_can_enter_a_graph():
    picture = aicr_ext.decompress(aicr_ext.compress(tensor()))
    weight = torch.ones(1, requires_grad=True)
    (picture * weight).sum().backward()
    torch.testing.assert_close(weight.grad, picture.sum()[None])


def test_a_weight_file_written_anew_is_read_anew(tmp_path):
    path = tmp_path / "model.safetensors"
    export_weights(path, untrained("aicr-t", seed=1), {})
    first = aicr_ext.compress(tensor(), model=path)
    export_weights(path, untrained("aicr-t", seed=2), {})
    second = aicr_ext.compress(tensor(), model=path)
    assert aicr_ext.read_info(first).weight_hash != aicr_ext.read_info(second).weight_hash
    assert aicr_ext.decompress(second, model=path).shape == (3, 48, 64)


def test_the_input_is_not_changed():
    x = tensor().float() / 255
    copy = x.clone()
    aicr_ext.compress(x)
    assert torch.equal(x, copy)
    y = tensor()
    copy = y.clone()
    aicr_ext.compress(y)
    assert torch.equal(y, copy)


def test_bytes_like_inputs_and_lists_decode():
    data = aicr_ext.compress(tensor())
    whole = aicr_ext.decompress(data)
    assert torch.equal(whole, aicr_ext.decompress(bytearray(data)))
    assert torch.equal(whole, aicr_ext.decompress(memoryview(data)))
    pair = aicr_ext.decompress([data, data])
    assert isinstance(pair, list)
    assert torch.equal(pair[1], whole)


@pytest.mark.parametrize(
    "image, error, words",
    [
        ("photo.png", TypeError, "image must be a torch tensor"),
        (torch.zeros(3, 8, 8, dtype=torch.int32), TypeError, "int32"),
        (torch.zeros(8, 8), ValueError, r"\(8, 8\)"),
        (torch.zeros(4, 8, 8), ValueError, r"\(4, 8, 8\)"),
        (torch.zeros(8, 8, 3), ValueError, r"\(8, 8, 3\)"),
        (torch.zeros(3, 0, 8), ValueError, "sides must be 1"),
        (torch.full((3, 8, 8), 1.5), ValueError, r"must lie in \[0, 1\], got values from 1.5 to 1.5"),
        (torch.full((3, 8, 8), -0.1), ValueError, r"values from -0.1"),
        (torch.tensor([0.0, float("nan"), 1.0]).expand(3, 4, 3), ValueError, "NaN"),
        (torch.full((3, 8, 8), float("inf")), ValueError, "inf"),
        (np.zeros((8, 8, 3), np.float32), TypeError, "float32"),
        (np.zeros((8, 8), np.uint8), ValueError, r"\(8, 8\)"),
        (np.zeros((3, 8, 8), np.uint8), ValueError, r"\(3, 8, 8\)"),
        (Image.new("RGBA", (8, 8)), ValueError, "mode RGB or L, got RGBA"),
        (Image.new("I;16", (8, 8)), ValueError, "I;16"),
    ],
)
def test_bad_images(image, error, words):
    with pytest.raises(error, match=words):
        aicr_ext.compress(image)


@pytest.mark.parametrize(
    "quality, error",
    [(-1, ValueError), (64, ValueError), (3.5, TypeError), (True, TypeError), ("9", TypeError)],
)
def test_bad_quality(quality, error):
    with pytest.raises(error, match="quality must be"):
        aicr_ext.compress(tensor(), quality=quality)


@pytest.mark.parametrize(
    "streams, error", [(0, ValueError), (257, ValueError), (2.0, TypeError), (True, TypeError), ("2", TypeError)]
)
def test_bad_number_of_streams(streams, error):
    with pytest.raises(error, match="streams must be"):
        aicr_ext.compress(tensor(), streams=streams)


@pytest.mark.parametrize("streams", [1, 2, 16, 256])
def test_the_number_of_streams_changes_no_symbol(codec, photo, streams):
    data = aicr_ext.compress(photo, streams=streams)
    assert aicr_ext.read_info(data).streams == streams
    whole = codec.compress(photo)
    assert torch.equal(codec.decompress(data), codec.decompress(whole))
    assert (data == whole) == (streams == 1)
    assert codec.compress(torch.stack([photo, photo]), streams=streams) == [data, data]


@pytest.mark.parametrize(
    "model, error, words",
    [
        ("aicr-x", ValueError, "unknown model 'aicr-x'"),
        ("aicr-s", ValueError, "holds no weights for 'aicr-s'"),
        ("missing.safetensors", FileNotFoundError, "missing.safetensors"),
        (3, TypeError, "name or a path"),
    ],
)
def test_bad_models(model, error, words):
    with pytest.raises(error, match=words):
        aicr_ext.load_model(model)


def test_a_device_that_is_not_there_is_named():
    with pytest.raises(ValueError, match="device 'nonsense' cannot be used here"):
        aicr_ext.compress(tensor(), device="nonsense")
    if not torch.cuda.is_available():
        with pytest.raises(ValueError, match="device 'cuda' cannot be used here"):
            aicr_ext.decompress(aicr_ext.compress(tensor()), device="cuda")


def test_precision_changes_rounding_and_no_symbol():
    picture = torch.from_numpy(np.array(Image.open(PHOTO).crop((0, 0, 128, 96)))).permute(2, 0, 1)
    exact, low = shipped_codec(), aicr_ext.Codec(precision="bfloat16")
    assert low.precision == "bfloat16"
    data, latents = low.compress(picture), []
    hooks = [
        codec.networks["synthesis"].register_forward_pre_hook(lambda _, args: latents.append(args[0]))
        for codec in (exact, low)
    ]
    try:
        ours, theirs = low.decompress(data), exact.decompress(data)
    finally:  # other tests use the exact one, too
        for hook in hooks:
            hook.remove()
    assert torch.equal(*latents)
    assert ours.dtype == torch.float32
    assert not torch.equal(ours, theirs)
    assert psnr(ours, theirs) > 45
    assert abs(len(data) / len(exact.compress(picture)) - 1) < 0.02
    assert torch.equal(aicr_ext.decompress(data, precision="bfloat16"), ours)
    assert aicr_ext.compress(picture, precision="bfloat16") == data


def test_automatic_precision_follows_the_device(monkeypatch):
    for known, expected in (({"avx512_bf16": True}, "bfloat16"), ({}, "float32")):
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda known=known: known, raising=False)
        assert aicr_ext.Codec(precision="auto").precision == expected
    with pytest.raises(ValueError, match="precision must be one of float32, bfloat16, auto, got 'half'"):
        aicr_ext.Codec(precision="half")


def test_a_weight_file_of_something_else(tmp_path):
    (tmp_path / "x.safetensors").write_bytes(b"nonsense")
    with pytest.raises(ValueError, match=r"x\.safetensors"):
        aicr_ext.load_model(tmp_path / "x.safetensors")


def test_damage_is_an_error_never_a_picture():
    data = aicr_ext.compress(tensor(20, 12), quality=0)
    for bit in range(0, 8 * len(data), 5):
        damaged = bytearray(data)
        damaged[bit // 8] ^= 1 << (bit % 8)
        with pytest.raises(errors.BitstreamError):
            aicr_ext.decompress(damaged)
    for end in range(0, len(data), 7):
        with pytest.raises(errors.BitstreamError):
            aicr_ext.decompress(data[:end])
    with pytest.raises(TypeError, match="bytes"):
        aicr_ext.decompress("text")


def test_damage_behind_a_right_checksum_is_still_an_error(codec):
    """The container's checksum repaired over a changed payload: the coder's own checks must see it."""
    data = codec.compress(tensor(), quality=30)
    header, (stream,) = container.unpack(data)
    rng = np.random.default_rng(0)
    for _ in range(40):
        changed = bytearray(stream)
        changed[rng.integers(len(changed))] ^= 1 << rng.integers(8)
        with pytest.raises(errors.BitstreamError):
            codec.decompress(container.pack(header, [bytes(changed)]))


def test_max_pixels():
    data = aicr_ext.compress(tensor(64, 48))
    with pytest.raises(errors.ImageTooLargeError, match="64 x 48"):
        aicr_ext.decompress(data, max_pixels=64 * 48 - 1)
    assert aicr_ext.decompress(data, max_pixels=64 * 48).shape == (3, 48, 64)


def test_other_weights_are_named(tmp_path):
    export_weights(tmp_path / "other.safetensors", untrained("aicr-t", seed=5), {"note": "random"})
    other = aicr_ext.Codec(tmp_path / "other.safetensors")
    data = other.compress(tensor())
    with pytest.raises(errors.ModelMismatchError, match=other.weight_hash[:4].hex()):
        aicr_ext.decompress(data)
    assert aicr_ext.decompress(data, model=tmp_path / "other.safetensors").shape == (3, 48, 64)
    with pytest.raises(errors.ModelMismatchError, match="aicr-t"):
        aicr_ext.Codec(untrained("aicr-s")).decompress(data)


def test_the_identity_is_of_weights_and_tables(codec, monkeypatch):
    data = codec.compress(tensor())
    ours = aicr_ext.read_info(data).weight_hash
    assert ours == codec.weight_hash[:4].hex()
    other = TableSet([[8192, 8192]], [2], [0], [0])
    monkeypatch.setattr("aicr_ext.codec.codec.gaussian_tables", lambda: other)
    changed = aicr_ext.Codec(codec.model)
    theirs = changed.weight_hash[:4].hex()
    assert theirs != ours
    with pytest.raises(errors.ModelMismatchError, match=f"needs model aicr-t .* {ours}; .* holds aicr-t .* {theirs}"):
        changed.decompress(data)


def test_a_model_without_shipped_weights_is_a_mismatch():
    """A file chooses its model, so this is an error of the file, as it is for a number that names no model."""
    data = container.pack(container.Header("aicr-l", b"abcd", 3, 8, 8), [b""])
    with pytest.raises(errors.ModelMismatchError, match="weights of aicr-l, which are not in this package"):
        aicr_ext.decompress(data)


@pytest.mark.parametrize("name", ["aicr-s", "aicr-l"])
def test_the_published_networks_round_trip_untrained(name):
    """No weights are shipped for them yet; the path through quantiser steps and wide latents must work all the same."""
    codec = aicr_ext.Codec(untrained(name))
    x = tensor(40, 24)
    assert codec.decompress(codec.compress(x)).shape == (3, 24, 40)


def test_exported_weights_load_as_they_were(tmp_path):
    model = aicr_ext.load_model("aicr-t")
    export_weights(tmp_path / "copy.safetensors", model, {})
    again = aicr_ext.Codec(tmp_path / "copy.safetensors")
    assert again.weight_hash == aicr_ext.Codec(model).weight_hash
    assert [p.name for p in tmp_path.iterdir()] == ["copy.safetensors"]


def test_shipped_weights_are_small_enough():
    for name in aicr_ext.shipped_models():
        assert (aicr_ext.codec.checkpoint.FOLDER / f"{name}.safetensors").stat().st_size <= 16 << 20
    assert "aicr-t" in aicr_ext.shipped_models()


def test_one_and_two_threads_agree_on_symbols(codec, photo):
    """Analysis may differ in the last float bit with the thread count; a file made with one decodes with the other."""
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        data = codec.compress(photo, quality=50)
        torch.set_num_threads(1)
        assert codec.decompress(data).shape == photo.shape
    finally:
        torch.set_num_threads(before)
