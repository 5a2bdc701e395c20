"""The training loop on a handful of generated pictures: it learns, resumes, and leaves a codec behind."""

from __future__ import annotations

import json

import pytest
import torch
from pictures import smooth

import aicr_ext
from aicr_ext.train import __main__ as command
from aicr_ext.train import loop
from aicr_ext.train.data import PatchSampler, load_images, principal_components
from aicr_ext.train.loop import TrainingOptions, lambda_of, train


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "data").mkdir()
    for i, angle in enumerate((0, 90, 180)):
        smooth(96 + 8 * i, 80).rotate(angle, expand=True).save(tmp_path / "data" / f"{i}.png")
    return tmp_path


def test_images_are_found_and_filtered(folder):
    assert [tuple(i.shape) for i in load_images(folder / "data", 64)][:2] == [(3, 80, 96), (3, 104, 80)]
    with pytest.raises(ValueError, match="no picture of at least 500 pixels"):
        load_images(folder / "data", 500)


def test_patches_are_seeded_and_in_range(folder):
    images = load_images(folder / "data", 64)
    first = PatchSampler(images, 7).batch(5, 64)
    assert first.shape == (5, 3, 64, 64)
    assert first.min() >= 0
    assert first.max() <= 1
    assert torch.equal(first, PatchSampler(images, 7).batch(5, 64))
    assert not torch.equal(first, PatchSampler(images, 8).batch(5, 64))


def test_principal_components_are_orthonormal_and_ordered(folder):
    basis, mean, deviation = principal_components(load_images(folder / "data", 64), 10, 0)
    assert mean.shape == (768,)
    torch.testing.assert_close(basis @ basis.t(), torch.eye(10), atol=1e-4, rtol=0)
    assert (deviation.diff() <= 1e-6).all()


def test_lambda_is_geometric():
    torch.testing.assert_close(
        lambda_of(torch.tensor([0, 21, 63]), (32.0, 2048.0)), torch.tensor([32.0, 128.0, 2048.0])
    )


def test_training_learns_resumes_and_leaves_a_codec(folder):
    torch.manual_seed(0)
    options = TrainingOptions(
        data=str(folder / "data"),
        out=str(folder / "run"),
        stages=((1.0, 4, 64),),
        warmup=5,
        report_every=10,
        max_steps=40,
        minutes=10,
    )
    weights = train(options)
    log = [json.loads(line) for line in (folder / "run" / "log.jsonl").read_text().splitlines()]
    assert [entry["step"] for entry in log] == [10, 20, 30, 40]
    assert log[-1]["loss"] < 0.8 * log[0]["loss"]
    assert log[-1]["skipped"] == 0
    options.max_steps = 50
    assert train(options) == weights
    last = json.loads((folder / "run" / "log.jsonl").read_text().splitlines()[-1])
    assert last["step"] == 50
    assert last["loss"] < log[0]["loss"]
    codec = aicr_ext.Codec(weights)
    picture = smooth(70, 50)
    assert codec.decompress(codec.compress(picture, quality=63)).shape == (3, 50, 70)
    assert sorted(p.name for p in (folder / "run").iterdir()) == [
        "aicr-t.safetensors",
        "log.jsonl",
        "state.pt",
    ]


def test_degraded_inputs_keep_their_clean_target(folder):
    options = TrainingOptions(
        data=str(folder / "data"),
        out=str(folder / "run"),
        stages=((1.0, 4, 64),),
        degrade=0.5,
        report_every=1,
        max_steps=2,
    )
    run = loop._Run(options)
    clean = run.sampler.batch(40, 64)
    copy = clean.clone()
    degraded = run._degraded(clean)
    assert torch.equal(clean, copy)
    changed = (degraded != clean).flatten(1).any(1).sum()
    assert 5 < changed < 25  # half are chosen, and of these some meet no degradation
    train(options)
    assert len((folder / "run" / "log.jsonl").read_text().splitlines()) == 2


@pytest.mark.parametrize("share", ["-0.1", "1.5", "much"])
def test_the_share_of_degraded_inputs_is_checked(share, folder, capsys):
    with pytest.raises(SystemExit):
        command.main([str(folder / "data"), str(folder / "run"), "--degrade", share])
    assert "--degrade" in capsys.readouterr().err
