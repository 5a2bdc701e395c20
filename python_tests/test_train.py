"""The training loop on a handful of generated pictures: it learns, resumes, and leaves a codec behind."""

from __future__ import annotations

import json

import pytest
import torch
from pictures import smooth

import aicr_ext
from aicr_ext.codec.checkpoint import untrained
from aicr_ext.train import __main__ as command
from aicr_ext.train import loop
from aicr_ext.train.data import Batches, load_images, principal_components
from aicr_ext.train.loop import TrainingOptions, lambda_of, train
from aicr_ext.train.mixture import Mixture
from aicr_ext.train.optimisers import build_optimiser


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


def test_batches_depend_on_seed_and_number_alone(folder):
    images = load_images(folder / "data", 64)
    batches = Batches(images, 7, Mixture(clean=0.3))
    fifth = batches.make(5, 6, 64)
    assert fifth.source.shape == fifth.target.shape == (6, 3, 64, 64)
    assert fifth.source.is_contiguous(memory_format=torch.channels_last)
    assert fifth.target.min() >= 0
    assert fifth.target.max() <= 1
    assert ((fifth.quality >= 0) & (fifth.quality < 64)).all()
    assert not torch.equal(fifth.target, batches.make(6, 6, 64).target)
    for mine, theirs in zip(fifth, Batches(images, 7, Mixture(clean=0.3)).make(5, 6, 64), strict=True):
        assert torch.equal(mine, theirs)
    assert not torch.equal(fifth.target, Batches(images, 8, Mixture(clean=0.3)).make(5, 6, 64).target)


def test_held_out_photographs_are_never_trained_on():
    images = [torch.full((3, 64, 64), i, dtype=torch.uint8) for i in range(10)]
    kept, held_out = loop.split(images, 4)
    assert [int(i[0, 0, 0]) for i in held_out] == [1, 3, 6, 8]
    assert sorted(int(i[0, 0, 0]) for i in kept + held_out) == list(range(10))
    assert len(loop.split(images, 100)[0]) == 5
    assert loop.split(images, 0) == (images, [])


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
        max_steps=60,
        minutes=10,
        validation=1,
        mixture=Mixture(clean=0.5),
    )
    weights = train(options)
    log = [json.loads(line) for line in (folder / "run" / "log.jsonl").read_text().splitlines()]
    assert [entry["step"] for entry in log] == [10, 20, 30, 40, 50, 60, 60]
    assert log[5]["loss"] < 0.8 * log[0]["loss"]
    assert log[5]["skipped"] == 0
    assert log[6].keys() >= {"valid_clean", "valid_degraded"}
    options.max_steps = 70
    assert train(options) == weights
    *_, last, valid = (json.loads(line) for line in (folder / "run" / "log.jsonl").read_text().splitlines())
    assert last["step"] == valid["step"] == 70
    assert last["loss"] < log[0]["loss"]
    codec = aicr_ext.Codec(weights)
    picture = smooth(70, 50)
    assert codec.decompress(codec.compress(picture, quality=63)).shape == (3, 50, 70)
    assert sorted(p.name for p in (folder / "run").iterdir()) == [
        "aicr-t.safetensors",
        "log.jsonl",
        "state.pt",
    ]


def test_mixture_shares():
    picture = torch.rand(3, 64, 64, generator=torch.Generator().manual_seed(0))
    copy = picture.clone()
    generator = torch.Generator().manual_seed(1)
    clean = [torch.equal(Mixture(clean=0.4, alone=1.0)(picture, generator), picture) for _ in range(200)]
    assert 60 < sum(clean) < 100
    assert torch.equal(picture, copy)
    noisy = Mixture(clean=0.0, alone=1.0, kinds={"gaussian_noise": 0.1, "haze": 0.0})
    assert all(not torch.equal(noisy(picture, generator), picture) for _ in range(20))
    assert torch.equal(Mixture()(picture, generator), picture)


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"clean": 1.5}, "clean"),
        ({"alone": -1}, "alone"),
        ({"kinds": {"fog": 0.5}}, "fog"),
        ({"clean": 0.5, "kinds": {}}, "at least one of haze"),
    ],
)
def test_mixture_refuses(arguments, message):
    with pytest.raises(ValueError, match=message):
        Mixture(**arguments)


def test_degraded_inputs_keep_their_clean_target(folder):
    batches = Batches(load_images(folder / "data", 64), 0, Mixture(clean=0.5))
    degraded = batches.make(0, 40, 64)
    clean = Batches(batches.images, 0, Mixture(clean=1.0)).make(0, 40, 64)
    assert torch.equal(degraded.target, clean.target)
    changed = (degraded.source != clean.source).flatten(1).any(1).sum()
    assert 5 < changed < 25  # half are chosen, and of these some meet no degradation


def test_muon_moves_every_parameter_and_resumes():
    torch.manual_seed(0)
    model = untrained("aicr-t").requires_grad_(True).to(memory_format=torch.channels_last)
    optimiser = build_optimiser("muon", model, 1e-3)
    assert sum(p.numel() for g in optimiser.param_groups for p in g["params"]) == sum(
        p.numel() for p in model.parameters()
    )
    before = {k: v.detach().clone() for k, v in model.named_parameters()}
    for p in model.parameters():
        p.grad = torch.randn_like(p)
    optimiser.step()
    assert [k for k, v in model.named_parameters() if torch.equal(v, before[k])] == []
    weight, old = (w["analysis.downs.0.0.weight"].flatten(1) for w in (dict(model.named_parameters()), before))
    update = (old * (1 - 1e-3 * 1e-4) - weight).detach()
    singular = torch.linalg.svdvals(update)
    assert singular.max() < 3 * singular.min()  # near orthogonal, unlike the random gradient
    optimiser.zero_grad()
    assert all(p.grad is None for p in model.parameters())
    other = build_optimiser("muon", model, 1e-3)
    other.load_state_dict(optimiser.state_dict())
    for a, b in zip(optimiser.parts, other.parts, strict=True):
        torch.testing.assert_close(a.state_dict()["state"], b.state_dict()["state"])


def test_unknown_optimiser_is_refused():
    with pytest.raises(ValueError, match="unknown optimiser 'sgd'; known: adamw, muon"):
        build_optimiser("sgd", untrained("aicr-t"), 1e-3)


@pytest.mark.parametrize("share", ["-0.1", "1.5", "much"])
def test_the_share_of_degraded_inputs_is_checked(share, folder, capsys):
    with pytest.raises(SystemExit):
        command.main([str(folder / "data"), str(folder / "run"), "--degrade", share])
    assert "--degrade" in capsys.readouterr().err
