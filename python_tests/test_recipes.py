"""Short trainings side by side, on a network that trains in moments."""

from __future__ import annotations

import pytest
import torch
from pictures import smooth
from training import TINY

from aicr_ext.codec.checkpoint import untrained
from aicr_ext.model.config import CONFIGS
from aicr_ext.model.initialise import initialise
from benchmarks import recipes


def test_recipes_make_rows_and_are_not_run_twice(tmp_path, tiny, monkeypatch, capsys):
    photographs = tmp_path / "photographs"
    photographs.mkdir()
    for name in "ab":
        smooth(256, 256).save(photographs / f"{name}.png")
    monkeypatch.setitem(CONFIGS, "aicr-t", TINY)
    arguments = [str(photographs), str(tmp_path / "runs"), "--steps", "2", "--only", "defaults", "published"]
    recipes.main(arguments)
    first = capsys.readouterr().out
    rows = {line.split("|")[1].strip(): line for line in first.splitlines()}
    assert {"recipe", "defaults", "published"} <= rows.keys()
    assert rows["defaults"].split("|")[4] != rows["published"].split("|")[4]  # the losses

    monkeypatch.setattr(recipes, "train", pytest.fail)
    recipes.main(arguments)
    assert capsys.readouterr().out == first


def test_every_recipe_is_accepted(photographs, tmp_path, monkeypatch):
    taken = []
    monkeypatch.setattr(recipes, "train", taken.append)
    monkeypatch.setattr(recipes.json, "loads", lambda line: {"valid_clean": 1.0})
    for name in recipes.RECIPES:
        folder = tmp_path / name.replace(" ", "-").replace(",", "")
        folder.mkdir()
        (folder / "log.jsonl").write_text("{}\n")
        recipes.try_out(name, str(photographs), tmp_path, 300)
    assert [options.max_steps for options in taken] == [300] * len(recipes.RECIPES)


def test_without_shortcut_the_networks_do_everything():
    model = untrained("aicr-t")
    initialise(model)
    before = model.analysis.head.weight.clone()
    recipes.no_shortcut(model)
    torch.testing.assert_close(model.analysis.head.weight, 20 * before)
    grey = model.synthesis.linear(torch.rand(1, model.config.latent, 2, 3))
    assert torch.equal(grey, torch.full_like(grey, 0.5))
    assert not model.analysis.linear(torch.rand(1, 768, 2, 3)).any()
