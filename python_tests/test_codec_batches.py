"""Pictures and files side by side: what each alone would be, in order, and errors that name the file."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from golden_models import FOLDER, MODELS
from pictures import smooth
from prior_cases import all_steps, latents

import aicr_ext
from aicr_ext import errors
from aicr_ext.codec import codec as module
from aicr_ext.codec import container, streams
from aicr_ext.codec import priors as priors_module
from aicr_ext.codec.checkpoint import load_model
from aicr_ext.codec.priors import IntegerPriors
from aicr_ext.model.config import CONFIGS
from aicr_ext.ops.kernels import plain_torch


@pytest.fixture(scope="module")
def codec() -> aicr_ext.Codec:
    return aicr_ext.Codec()


def pictures(count: int, width: int, height: int) -> torch.Tensor:
    """uint8 (count, 3, H, W), from smooth to noise."""
    generator = torch.Generator().manual_seed(width + height)
    base = torch.from_numpy(np.array(smooth(width, height))).permute(2, 0, 1).float()
    noise = 255 * torch.rand(count, 3, height, width, generator=generator)
    part = torch.linspace(0, 1, count)[:, None, None, None]
    return (base + (noise - base) * part).round().byte()


@pytest.mark.parametrize("size", [(1, 1), (16, 16), (40, 33), (130, 70)], ids=str)
def test_bytes_and_pictures_do_not_depend_on_the_batch(codec, size, monkeypatch):
    batch = pictures(4, *size)
    whole = sorted(len(codec.compress(picture, quality=45, streams=1)) for picture in batch)
    monkeypatch.setattr(streams, "STREAM_BYTES", sum(whole[1:3]) // 2)  # some are cut, some are not
    alone = [codec.compress(picture, quality=45) for picture in batch]
    assert codec.compress(batch, quality=45) == alone
    if size == (130, 70):
        assert {aicr_ext.read_info(data).streams > 1 for data in alone} == {False, True}
    decoded = codec.decompress(alone)
    assert all(torch.equal(codec.decompress(data), picture) for data, picture in zip(alone, decoded, strict=True))


@pytest.mark.parametrize("config", MODELS, ids=lambda config: config.name)
def test_the_integer_networks_take_pictures_side_by_side(config, monkeypatch):
    """With kernels, without, and in strips."""
    monkeypatch.setitem(CONFIGS, config.name, config)
    model = load_model(FOLDER / f"{config.name}.safetensors")
    priors = IntegerPriors(model)
    z, values = latents(model, 9, 7)
    z, values = (torch.cat([x, -x, x.flip(2), torch.zeros_like(x)]) for x in (z, values))
    alone = [all_steps(priors, z[b : b + 1], values[b : b + 1]) for b in range(4)]
    assert not torch.equal(alone[0][1], alone[1][1])
    for strips in (priors_module._STRIP_VALUES, 1):
        monkeypatch.setattr(priors_module, "_STRIP_VALUES", strips)
        together = all_steps(priors, z, values)
        assert all(
            torch.equal(whole, torch.cat(parts))
            for whole, parts in zip(together, map(list, zip(*alone, strict=True)), strict=True)
        )
    with plain_torch():
        assert all(torch.equal(a, b) for a, b in zip(all_steps(priors, z, values), together, strict=True))


def test_files_of_several_sizes_come_back_in_order(codec):
    sizes = [(40, 24), (17, 33), (40, 24), (33, 17), (47, 31), (40, 24)]  # the fifth has the latent of the first
    given = [pictures(2, *size)[i % 2] for i, size in enumerate(sizes)]
    files = [codec.compress(picture, quality=60 - 9 * i) for i, picture in enumerate(given)]
    decoded = codec.decompress(files)
    assert [tuple(picture.shape[1:]) for picture in decoded] == [(h, w) for w, h in sizes]
    assert all(torch.equal(codec.decompress(data), picture) for data, picture in zip(files, decoded, strict=True))
    assert all(picture.is_contiguous() for picture in decoded)
    assert codec.decompress([]) == []
    assert len(codec.decompress(files[:1])) == 1


def test_only_so_many_pixels_pass_through_the_networks_together(codec, monkeypatch):
    batch = pictures(5, 40, 24)
    files = codec.compress(batch)
    whole = codec.decompress(files)
    seen = []
    encode, decode = codec._encode, codec._decode
    monkeypatch.setattr(codec, "_encode", lambda few, *rest: seen.append(len(few)) or encode(few, *rest))
    monkeypatch.setattr(codec, "_decode", lambda few: seen.append(len(few)) or decode(few))
    for pixels, expected in ((2 * 48 * 32, [3, 2, 2, 2, 1]), (1, [1] * 10)):
        monkeypatch.setattr(module, "_BATCH_PIXELS", pixels)
        seen.clear()
        assert codec.compress(batch) == files
        assert all(torch.equal(a, b) for a, b in zip(codec.decompress(files), whole, strict=True))
        assert seen == expected


def test_the_error_of_one_file_among_several_names_it(codec):
    files = codec.compress(pictures(3, 40, 24))
    header, (coded,) = container.unpack(files[1])
    changed = container.pack(header, [bytes(coded) + b"\0"])
    other = container.pack(replace(header, weight_hash=b"abcd"), [coded])
    cases = [
        (changed, errors.TruncatedError, "^file 2 of 3: the coded stream goes on"),
        (files[1][:-3], errors.BitstreamError, "^file 2 of 3: "),
        (
            other,
            errors.ModelMismatchError,
            "^file 2 of 3: the file needs model aicr-t with weights and tables 61626364",
        ),
        ("text", TypeError, "^file 2 of 3: data must be bytes"),
    ]
    for wrong, error, words in cases:
        for decompress in (codec.decompress, aicr_ext.decompress):
            with pytest.raises(error, match=words):
                decompress([files[0], wrong, files[2]])
            with pytest.raises(error, match=words.replace("file 2 of 3: ", "")):
                decompress(wrong)
    with pytest.raises(errors.ImageTooLargeError, match=r"^file 1 of 3: "):
        codec.decompress(files, max_pixels=100)
    unknown = container.pack(replace(header, model="aicr-l"), [coded])
    with pytest.raises(errors.ModelMismatchError, match=r"^file 3 of 3: the file was made with weights of aicr-l"):
        aicr_ext.decompress([files[0], files[1], unknown])


def test_files_of_several_models_come_back_in_order():
    given = pictures(4, 40, 24)
    names = ["aicr-t", "aicr-t-clean", "aicr-t-clean", "aicr-t"]
    files = [aicr_ext.compress(picture, model=name) for picture, name in zip(given, names, strict=True)]
    decoded = aicr_ext.decompress(files)
    assert all(torch.equal(aicr_ext.decompress(data), picture) for data, picture in zip(files, decoded, strict=True))
