"""Training on a handful of generated pictures: what it sees, what it minimises, and that it learns."""

from __future__ import annotations

import math
import shutil
from pathlib import Path

import pytest
import torch
from pictures import smooth
from training import log_of, short

import aicr_ext
from aicr_ext.codec.checkpoint import untrained
from aicr_ext.model.scale import lambda_of
from aicr_ext.train import TrainingOptions, loop, train
from aicr_ext.train.data import Batches, draw_qualities, load_images, patch_statistics, principal_components
from aicr_ext.train.feed import Feed, Request
from aicr_ext.train.losses import guidance_term, rate_distortion_loss
from aicr_ext.train.mixture import Mixture
from aicr_ext.train.optimisers import build_optimiser
from aicr_ext.train.parallel import Group
from aicr_ext.train.validation import split

SAMPLES = Path(__file__).parent.parent / "samples"


def test_images_are_found_and_filtered(photographs):
    assert [tuple(i.shape) for i in load_images(photographs, 64)][:2] == [(3, 80, 96), (3, 104, 80)]
    with pytest.raises(ValueError, match="no picture of at least 500 pixels"):
        load_images(photographs, 500)


def test_patches_depend_on_seed_batch_and_row_alone(photographs):
    images = load_images(photographs, 64)
    fifth = Batches(images, 7, Mixture(clean=0.3)).make(5, range(6), 64)
    assert fifth.source.shape == fifth.target.shape == (6, 3, 64, 64)
    assert fifth.source.is_contiguous(memory_format=torch.channels_last)
    assert fifth.target.min() >= 0
    assert fifth.target.max() <= 1
    again = Batches(images, 7, Mixture(clean=0.3))
    for whole, part in zip(fifth, again.make(5, range(4, 6), 64), strict=True):
        assert torch.equal(whole[4:], part)
    assert not torch.equal(fifth.target, again.make(6, range(6), 64).target)
    assert not torch.equal(fifth.target, Batches(images, 8, Mixture(clean=0.3)).make(5, range(6), 64).target)


def test_large_pictures_are_drawn_more_often():
    images = [torch.full((3, 64, 64 * (1 + 3 * i)), 255 * i, dtype=torch.uint8) for i in range(2)]
    white = Batches(images, 0, Mixture()).make(0, range(200), 64).target.mean((1, 2, 3))
    assert 140 < int(white.sum()) < 180  # four fifths


@pytest.mark.parametrize("workers", [0, 2])
def test_batches_are_fed_in_order_by_any_number_of_workers(workers, photographs):
    batches = Batches(load_images(photographs, 64), 7, Mixture(clean=0.5))
    device = torch.device("cpu")
    feed = Feed(batches, lambda n: Request(n, range(1, 3), 4, 64 if n < 5 else 80), 3, workers, device)
    for number in range(3, 7):
        request, batch = next(feed)
        assert request.number == number
        for mine, theirs in zip(batch, batches.make(number, range(1, 3), request.side), strict=True):
            assert torch.equal(mine, theirs)
            assert mine.is_contiguous(memory_format=torch.channels_last)
    feed.close()


def test_uniform_qualities():
    drawn = torch.cat([draw_qualities("uniform", 0, step, range(16), 0.0) for step in range(40)])
    assert drawn.unique().tolist() == list(range(64))
    assert torch.equal(draw_qualities("uniform", 0, 3, range(4, 8), 0.9), drawn[3 * 16 :][4:8])


def test_pairs_of_qualities_as_published():
    steps = [draw_qualities("pairs", 0, step, range(4), 0.4).tolist() for step in range(3)]
    assert steps == [[0, 21, 0, 21], [42, 63, 42, 63], [0, 21, 0, 21]]
    assert torch.equal(draw_qualities("pairs", 0, 0, range(9), 0.5), draw_qualities("uniform", 0, 0, range(9), 0.5))


def test_held_out_photographs_are_never_trained_on():
    images = [torch.full((3, 64, 64), i, dtype=torch.uint8) for i in range(10)]
    kept, held_out = split(images, 4)
    assert [int(i[0, 0, 0]) for i in held_out] == [1, 3, 6, 8]
    assert sorted(int(i[0, 0, 0]) for i in kept + held_out) == list(range(10))
    assert len(split(images, 100)[0]) == 5
    assert split(images, 0) == (images, [])


def test_principal_components_are_orthonormal_and_ordered(photographs):
    basis, mean, deviation = principal_components(*patch_statistics(load_images(photographs, 64), 0), 10)
    assert mean.shape == (768,)
    torch.testing.assert_close(basis @ basis.t(), torch.eye(10), atol=1e-4, rtol=0)
    assert (deviation.diff() <= 1e-6).all()


def test_lambda_is_geometric():
    torch.testing.assert_close(
        lambda_of(torch.tensor([0, 21, 63]), (32.0, 2048.0)), torch.tensor([32.0, 128.0, 2048.0])
    )


def test_the_loss_is_rate_plus_distortion():
    bpp, lam, extra = torch.tensor([0.5, 1.0]), torch.tensor([64.0, 256.0]), torch.tensor([0.1, 0.0])
    picture, target = torch.zeros(2, 3, 4, 4), torch.full((2, 3, 4, 4), 0.1)
    loss, mse = rate_distortion_loss(bpp, picture, target, lam, balance=False)
    torch.testing.assert_close(mse, torch.tensor([0.01, 0.01]))
    torch.testing.assert_close(loss, torch.tensor((0.5 + 64 * 0.03 + 1.0 + 256 * 0.03) / 2))
    loss, _ = rate_distortion_loss(bpp, picture, target, lam, extra=extra)
    torch.testing.assert_close(loss, torch.tensor(((0.6 + 64 * 0.03) * 2 + (1.0 + 256 * 0.03)) / 2))


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


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_unclipped_noise(share):
    mixture = Mixture(clean=0.0, alone=1.0, kinds={"gaussian_noise": 1.0}, unclipped=share)
    picture, generator = torch.full((3, 16, 16), 0.01), torch.Generator().manual_seed(0)
    beyond = [float(mixture(picture, generator).min()) < 0 for _ in range(40)]
    assert abs(sum(beyond) - 40 * share) < 12 * (0 < share < 1) + 1e-9


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"clean": 1.5}, "clean"),
        ({"alone": -1}, "alone"),
        ({"unclipped": 2}, "unclipped"),
        ({"kinds": {"fog": 0.5}}, "fog"),
        ({"clean": 0.5, "kinds": {}}, "at least one of haze"),
    ],
)
def test_mixture_refuses(arguments, message):
    with pytest.raises(ValueError, match=message):
        Mixture(**arguments)


def test_degraded_inputs_keep_their_clean_target(photographs):
    batches = Batches(load_images(photographs, 64), 0, Mixture(clean=0.5))
    degraded = batches.make(0, range(40), 64)
    clean = Batches(batches.images, 0, Mixture(clean=1.0)).make(0, range(40), 64)
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


def test_a_loss_beyond_the_knee_counts_by_its_logarithm():
    target = torch.zeros(2, 3, 8, 8)
    bpp, lam = torch.tensor([1.0, 1.0]), torch.tensor([256.0, 256.0])
    arguments = bpp, target, target, lam, True, torch.tensor([0.0, 9.0])
    assert float(rate_distortion_loss(*arguments)[0]) == pytest.approx(5.5)
    bent = (3 * math.log1p(1 / 3) + 3 * math.log1p(10 / 3)) / 2
    assert float(rate_distortion_loss(*arguments, knee=3.0)[0]) == pytest.approx(bent)


def test_unknown_optimiser_is_refused():
    with pytest.raises(ValueError, match="unknown optimiser 'sgd'; known: adamw, muon, adam"):
        build_optimiser("sgd", untrained("aicr-t"), 1e-3)


def test_training_leaves_log_curve_and_a_codec(photographs, tmp_path, tiny):
    options = short(photographs, tmp_path / "run", mixture=Mixture(clean=0.5), optimiser="muon")
    said = []
    weights = train(options, said.append)
    log = log_of(tmp_path / "run")
    assert [entry["step"] for entry in log] == [0, 2, 4, 6, 6]
    assert log[0]["run"]["precision"] == "float32"
    assert log[0]["options"]["optimiser"] == "muon"
    assert log[3].keys() >= {"loss", "bpp", "z_bpp", "psnr", "grad_norm", "rate"}
    assert "guidance" not in log[3]
    assert log[3]["skipped"] == 0
    assert log[4].keys() >= {"valid_clean", "valid_degraded"}
    assert any("valid degraded" in line for line in said)
    codec = aicr_ext.Codec(weights)
    picture = smooth(70, 50)
    assert codec.decompress(codec.compress(picture, quality=63)).shape == (3, 50, 70)
    left = ["config.toml", "log.jsonl", "state.pt", "tiny.safetensors"]
    assert sorted(p.name for p in (tmp_path / "run").iterdir()) == left
    # the light way on: new folder, the weights, warm-up anew
    lighter = train(short(photographs, tmp_path / "next", start=str(weights)))
    assert log_of(tmp_path / "next")[1]["loss"] < 1.2 * log[3]["loss"]
    assert lighter.parent == tmp_path / "next"


def test_steps_without_use_are_skipped_and_counted(photographs, tmp_path, tiny, monkeypatch):
    forward, calls = loop._Run._forward, []

    def sometimes_bad(self, *args):
        result, loss, mse, term = forward(self, *args)
        calls.append(None)
        return result, loss * float("nan") if len(calls) == 3 else loss, mse, term

    monkeypatch.setattr(loop._Run, "_forward", sometimes_bad)
    options = short(photographs, tmp_path / "run", validation=0)
    weights = train(options)
    assert log_of(tmp_path / "run")[-2]["skipped"] == 1
    assert all(v.isfinite().all() for v in aicr_ext.load_model(weights).parameters())
    train(short(photographs, tmp_path / "capped", loss_cap=1e-6, validation=0, report_every=1))
    capped = log_of(tmp_path / "capped")
    assert [entry["skipped"] for entry in capped if "skipped" in entry] == [1, 2, 3, 4, 5, 6]
    assert not any("loss" in entry for entry in capped)
    assert capped[0]["options"]["loss_cap"] == 1e-6
    assert log_of(tmp_path / "run")[0]["options"]["loss_cap"] == "inf"


def test_guidance_is_zero_for_equal_features_and_follows_its_definition():
    clean, other = torch.rand(2, 3, 4, 4), torch.rand(2, 5, 2, 2)
    assert guidance_term([clean, other], [clean, other]).tolist() == [0, 0]
    moved = guidance_term([clean + 0.5, other], [clean, other - 0.25])
    torch.testing.assert_close(moved, torch.tensor([0.75, 0.75]))


@pytest.mark.parametrize("name", ["aicr-s", "aicr-t"])
def test_taps_of_the_analysis(name):
    model, taps = untrained(name), []
    picture, quality = torch.rand(1, 3, 64, 64), torch.tensor([9])
    y = model.analysis(picture, quality, taps)
    assert [tuple(t.shape[2:]) for t in taps] == [(16, 16) if name == "aicr-s" else (8, 8), (4, 4)]
    assert torch.equal(taps[1], model.y_and_detail(y)[0])
    without_gradients: list[torch.Tensor] = []
    with torch.no_grad():  # blocks then overwrite what nobody needs any more, and taps are needed
        model.analysis(picture, quality, without_gradients)
    torch.testing.assert_close(without_gradients, taps, atol=1e-3, rtol=1e-4)


@pytest.mark.parametrize("detach", [True, False])
def test_guidance_enters_loss_and_gradient_as_defined(detach, photographs, tmp_path, tiny):
    mixture = Mixture(clean=0.5, alone=1.0, kinds={"gaussian_noise": 1.0})
    options = short(photographs, tmp_path / "run", mixture=mixture, guidance_detach=detach)
    run = loop._Run(options, Group("cpu"), print)
    clean = torch.ones(4)
    while clean.all():
        _, batch = next(run.feed)
        clean = (batch.source == batch.target).flatten(1).all(1)
    assert clean.any()
    quality = torch.tensor([0, 9, 30, 63])
    torch.manual_seed(0)
    without = run._forward(run.model, batch, quality)[1]
    torch.manual_seed(0)
    _, loss, _, term = run._forward(run.model, batch, quality, guidance=3.0)
    assert ((term == 0) == clean).all()
    weight = 16 / lambda_of(quality, run.model.config.lambdas).sqrt()
    torch.testing.assert_close(loss - without, (3 * term * weight).mean(), atol=1e-3, rtol=1e-4)

    parameters = list(run.model.analysis.parameters())
    taps, guide = [], []
    run.model.analysis(batch.source, quality, taps)
    run.model.analysis(batch.target, quality, guide)
    fixed = torch.autograd.grad(guidance_term(taps, [t.detach() for t in guide]).sum(), parameters, retain_graph=True)
    both = torch.autograd.grad(guidance_term(taps, guide).sum(), parameters)
    found = torch.autograd.grad(term.sum(), parameters, allow_unused=True)
    same = [all(torch.allclose(a, b, atol=1e-6) for a, b in zip(found, g, strict=True)) for g in (fixed, both)]
    assert same == [detach, not detach]


def test_two_steps_on_one_batch(photographs, tmp_path, tiny, monkeypatch):
    seen = []
    forward = loop._Run._forward

    def note(self, model, batch, quality, *rest):
        seen.append((batch.source.sum().item(), quality.tolist()))
        return forward(self, model, batch, quality, *rest)

    monkeypatch.setattr(loop._Run, "_forward", note)
    train(short(photographs, tmp_path / "run", steps_per_batch=2, qualities="pairs", max_steps=10, validation=0))
    assert [a == b for (a, _), (b, _) in zip(seen[::2], seen[1::2], strict=True)] == [True] * 5
    assert len({a for a, _ in seen}) == 5
    assert [q for _, q in seen[:4]] == [[0, 21, 0, 21], [42, 63, 42, 63]] * 2
    assert seen[6][1] != [0, 21, 0, 21]


def test_compiled_training_goes_through_torch_compile(photographs, tmp_path, tiny, monkeypatch):
    compiled = []
    monkeypatch.setattr(torch, "compile", lambda model: compiled.append(model) or model)
    train(short(photographs, tmp_path / "run", compile=True, max_steps=1))
    assert len(compiled) == 1


@pytest.mark.slow
def test_a_short_run_on_a_photograph_lowers_the_loss(tmp_path):
    (tmp_path / "data").mkdir()
    shutil.copy(SAMPLES / "kodim23.png", tmp_path / "data")
    options = TrainingOptions.from_config(tmp_path / "data", tmp_path / "run", "quick")
    options.stages, options.max_steps, options.minutes, options.warmup = ((1.0, 4, 64),), 40, 30.0, 10
    train(options)
    losses = [entry["loss"] for entry in log_of(tmp_path / "run") if "loss" in entry]
    assert losses[-1] < 0.85 * losses[0]
