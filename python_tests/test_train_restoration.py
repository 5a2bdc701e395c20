"""The objectives that teach the analysis alone to restore."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from training import TONED, UNGATED, log_of, short

from aicr_ext.codec.checkpoint import export_weights, load_model, untrained
from aicr_ext.model.aicr import AICR
from aicr_ext.model.config import get_config
from aicr_ext.model.initialise import initialise
from aicr_ext.train import TrainingOptions, train
from aicr_ext.train.mixture import Mixture
from aicr_ext.train.restoration import Restoration, latent_loss, tone_loss
from aicr_ext.train.start import as_model

DARK = Mixture(clean=0.0, alone=1.0, kinds={"low_light": 1.0})


def changed(before: AICR, after: AICR) -> set[str]:
    """Names of the parameters that differ."""
    old = dict(before.named_parameters())
    return {name for name, value in after.named_parameters() if not torch.equal(value, old[name])}


@pytest.fixture
def start(tmp_path, toned):
    """Weights of a small network with a tone field."""
    path = tmp_path / "start.safetensors"
    export_weights(path, untrained(TONED), {})
    return str(path)


def test_tone_loss_sees_means_and_nothing_finer():
    target = torch.full((2, 3, 32, 48), 0.5)
    chess = torch.tensor([[0.2, -0.2], [-0.2, 0.2]]).repeat(16, 24)
    floor = math.sqrt(1e-4)
    assert float(tone_loss(target + chess, target)) == pytest.approx(floor, rel=1e-3)
    lighter = torch.cat([target[:1] + 0.3, target[1:]])
    assert float(tone_loss(lighter, target)) == pytest.approx((math.sqrt(0.09 + 1e-4) + floor) / 2, rel=1e-5)


def test_latent_loss_is_the_root_mean_square_of_each_picture():
    y, target = torch.zeros(2, 4, 3, 3), torch.zeros(2, 4, 3, 3)
    y[0] = 2.0
    assert float(latent_loss(y, target)) == pytest.approx((math.sqrt(4.02) + math.sqrt(0.02)) / 2)


def test_latents_of_clean_pictures_are_where_they_should_be():
    model = untrained(TONED)
    objective = Restoration("latent", model)
    picture = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        clean, dark = objective(model.analysis, picture, picture), objective(model.analysis, picture * 0.2, picture)
    assert float(clean) == pytest.approx(math.sqrt(0.02) + 0.01, rel=1e-4)
    assert float(dark) > 2 * float(clean)


def test_noise_is_no_part_of_the_aim():
    """A noisy picture has more noise in its latents than a clean one, and that is no difference to undo."""
    model = untrained(TONED)
    objective = Restoration("latent", model)
    x = torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        before = float(objective(model.analysis, x, x))
        for gate in (model.analysis.gate, model.analysis.detail.gate):
            gate.noise.bias.add_(3)
        assert float(objective(model.analysis, x, x)) == before


@pytest.mark.parametrize("objective, part", [("tone", "analysis.tone."), ("latent", "analysis.")])
def test_only_its_part_is_trained(objective, part, start, photographs, tmp_path):
    options = short(photographs, tmp_path / "run", model=TONED.name, start=start, objective=objective, mixture=DARK)
    moved = changed(load_model(start), load_model(train(options)))
    assert moved
    assert all(name.startswith(part) and "scale." not in name for name in moved)
    lines = [line for line in log_of(tmp_path / "run") if "loss" in line]
    assert all(math.isfinite(line["loss"]) and "bpp" not in line for line in lines)


@pytest.mark.parametrize("config", ["tone", "latent"])
def test_its_config_trains(config, start, photographs, tmp_path):
    changes = {"model": TONED.name, "start": start, "stages": [[1.0, 4, 64]], "max_steps": 2, "precision": "float32"}
    options = TrainingOptions.from_config(photographs, tmp_path / "run", config, changes)
    assert options.objective == config
    assert changed(load_model(start), load_model(train(options)))


def test_the_bar_shows_what_there_is(start, photographs, tmp_path, capsys):
    options = short(photographs, tmp_path / "run", model=TONED.name, start=start, objective="tone", mixture=DARK)
    train(options, bar=True)
    assert "%|" in capsys.readouterr().err  # a loss without rate and PSNR beside it is no reason to stop


def test_the_tone_field_learns_that_dark_pictures_were_lighter(start, photographs, tmp_path):
    options = short(
        photographs,
        tmp_path / "run",
        model=TONED.name,
        start=start,
        objective="tone",
        mixture=DARK,
        max_steps=60,
        learning_rate=3e-3,
        warmup=5,
        report_every=10,
    )
    model = load_model(train(options))
    losses = [line["loss"] for line in log_of(tmp_path / "run") if "loss" in line]
    assert losses[-1] < 0.7 * losses[0]
    dark = torch.full((1, 3, 64, 64), 0.05)
    with torch.no_grad():
        assert float(model.analysis.tone(dark).mean()) > 0.15


@pytest.mark.parametrize("optimiser", ["adamw", "muon"])
def test_frozen_parts_stay_as_they_are(optimiser, start, photographs, tmp_path):
    freeze = ["analysis.tone", "synthesis.tail"]
    options = short(
        photographs, tmp_path / "run", model=TONED.name, start=start, freeze=freeze, mixture=DARK, optimiser=optimiser
    )
    moved = changed(load_model(start), load_model(train(options)))
    assert any(name.startswith("analysis.stem") for name in moved)
    assert any(name.startswith("synthesis.head") for name in moved)
    assert not any(name.startswith(tuple(freeze)) for name in moved)
    assert 'freeze = ["analysis.tone", "synthesis.tail"]' in (tmp_path / "run" / "config.toml").read_text()


def test_parts_that_are_trained_alone(start, photographs, tmp_path):
    options = short(photographs, tmp_path / "run", model=TONED.name, start=start, mixture=DARK)
    options = replace(options, only=("analysis.gate", "synthesis.head"), freeze=("analysis.gate.around",))
    moved = changed(load_model(start), load_model(train(options)))
    assert any(name.startswith("analysis.gate.head") for name in moved)
    assert any(name.startswith("synthesis.head") for name in moved)
    assert all(name.startswith(("analysis.gate.", "synthesis.head.", "hyper_prior.table")) for name in moved)
    assert not any(name.startswith("analysis.gate.around") for name in moved)


def test_weights_without_detail_get_what_their_shortcut_lacks(toned, photographs, tmp_path):
    older = tmp_path / "older.safetensors"
    export_weights(older, untrained(replace(TONED, detail=0)), {})
    options = short(photographs, tmp_path / "run", model=TONED.name, start=older, only=["detail_prior"])
    model = load_model(train(options))
    was = dict(load_model(older).named_parameters())
    assert all(torch.equal(value, was[name]) for name, value in model.named_parameters() if name in was)
    basis, shortcut = model.analysis.detail.linear.weight[..., 0, 0], model.synthesis.linear.weight[..., 0, 0]
    torch.testing.assert_close(basis @ basis.t(), torch.eye(TONED.detail), atol=1e-2, rtol=0)
    assert (basis @ shortcut).abs().max() < 0.01 * shortcut.norm()
    options = replace(options, out=str(tmp_path / "again"), start=str(tmp_path / "run" / f"{TONED.name}.safetensors"))
    again = load_model(train(options))
    assert torch.equal(again.analysis.detail.linear.weight, model.analysis.detail.linear.weight)


def test_only_parts_that_there_are_can_be_frozen(start, photographs, tmp_path):
    with pytest.raises(ValueError, match=r"freeze: tiny-toned has no part 'analysis.ton'; among .* analysis.tone,"):
        train(short(photographs, tmp_path / "run", model=TONED.name, start=start, freeze=["analysis.ton"]))
    with pytest.raises(ValueError, match=r"only: tiny-toned has no part 'gate'; among .* analysis.gate,"):
        train(short(photographs, tmp_path / "run", model=TONED.name, start=start, only=["gate"]))
    with pytest.raises(TypeError, match=r"freeze: expected a list of texts, got 'analysis.tone'"):
        short(photographs, tmp_path / "run", freeze="analysis.tone")


def test_models_without_a_tone_field_have_no_such_objective():
    with pytest.raises(ValueError, match="objective: tone needs a tone field, which aicr-s has not"):
        Restoration("tone", AICR("aicr-s"))


def test_latent_needs_weights_to_start_from(tiny, photographs, tmp_path):
    with pytest.raises(ValueError, match=r"objective: latent .* start names none"):
        train(short(photographs, tmp_path / "run", objective="latent"))


@pytest.mark.parametrize(
    "without",
    [
        {"tone_field": False, "detail": 0, **UNGATED},
        {"wiener_filter": False},
        {"noise_evidence": False, "feedback": False},
        {"feedback": False},
        {"detail": 0},
    ],
    ids=str,
)
def test_older_weights_get_parts_that_do_nothing_yet(without):
    torch.manual_seed(0)
    wanted = get_config("aicr-t")
    old = AICR(replace(wanted, name="older", wire_id=90, **without))
    initialise(old)
    new = as_model(wanted, old)
    assert new.config == wanted
    assert as_model(wanted, new) is new
    for name, value in [*old.named_parameters(), *new.named_parameters()]:
        # filter and feedback begin with little, to have a gradient
        if name.endswith("gate.noise.bias"):
            assert value.exp().max() < 5 / 255
            value.detach().fill_(-20)
        if name.endswith("feedback.head.bias"):
            assert 2 * value.sigmoid().max() < 0.05
            value.detach().fill_(-100)
    picture, quality = torch.rand(1, 3, 64, 64), torch.tensor([20])
    with torch.no_grad():
        torch.testing.assert_close(new.eval()(picture, quality), old.eval()(picture, quality))


def test_weights_of_another_shape_are_no_start():
    wanted = get_config("aicr-t")
    for other in (AICR(TONED), AICR(replace(wanted, blocks=(1, 1, 1)))):
        with pytest.raises(ValueError, match="start: expected weights of aicr-t, got those of"):
            as_model(wanted, other)
    with pytest.raises(ValueError, match="start: expected weights of aicr-t-clean, got those of aicr-t"):
        as_model(get_config("aicr-t-clean"), AICR(wanted))
