"""Means of the weights that a run began and ended with."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from training import TINY, TONED, UNGATED

from aicr_ext.codec.checkpoint import export_weights, load_model, untrained
from aicr_ext.codec.codec import Codec
from aicr_ext.train.average import average, compare, main
from aicr_ext.train.options import TrainingOptions


@pytest.fixture
def ends(tmp_path, toned):
    """Weight files of two networks of one shape."""
    paths = [tmp_path / f"{name}.safetensors" for name in ("start", "result")]
    for seed, path in enumerate(paths):
        export_weights(path, untrained(TONED, seed), {"steps": "7"})
    return paths


def test_shares(ends):
    start, result = (dict(load_model(path).named_parameters()) for path in ends)
    for share in (0, 0.25, 1):
        for name, value in average(*ends, share).named_parameters():
            assert torch.equal(value, (1 - share) * start[name] + share * result[name]), name


def test_parts_that_the_start_lacks_are_those_of_the_result(ends, tmp_path):
    older = tmp_path / "older.safetensors"
    export_weights(older, untrained(replace(TONED, **UNGATED), 0), {})
    mean, result = average(older, ends[1], 0.5), load_model(ends[1])
    assert torch.equal(mean.analysis.gate.mix.weight, result.analysis.gate.mix.weight)
    assert not torch.equal(mean.analysis.head.weight, result.analysis.head.weight)


def test_what_is_refused(ends, tmp_path):
    for share in (-0.1, 1.1, math.nan):
        with pytest.raises(ValueError, match=f"share must be from 0 to 1, got {share}"):
            average(*ends, share)
    other = tmp_path / "other.safetensors"
    export_weights(other, untrained(TINY), {})
    for pair in ((other, ends[0]), (ends[0], other)):
        with pytest.raises(ValueError, match=r"is of tiny.*, .* of tiny.*, or another shape of it"):
            average(*pair, 0.5)


def test_comparing_needs_photographs(ends, photographs):
    options = TrainingOptions(str(photographs), "unused", validation=0, stages=((1, 4, 64),))
    with pytest.raises(ValueError, match="validation must be at least 1 photograph"):
        compare(*ends, [1], options)


def test_comparing_says_how_losses_change(ends, photographs):
    options = TrainingOptions(str(photographs), "unused", mixture={"clean": 0.5}, validation=1, stages=((1, 4, 64),))
    nothing, all_of_it = compare(*ends, [0, 1], options)
    names = {"share"} | {
        f"{kind}{what} %" for kind in ("clean", "degraded", "noise 15", "noise 25") for what in ("", ", median")
    }
    assert set(nothing) == names
    assert [value for name, value in nothing.items() if name != "share"] == [0] * 8
    assert all(value != 0 for value in all_of_it.values())


def test_the_command_compares_and_writes(ends, photographs, tmp_path, capsys):
    out, config = tmp_path / "mean.safetensors", tmp_path / "small.toml"
    config.write_text("stages = [[1.0, 4, 64]]\n[mixture]\nclean = 0.5\n")
    options = ["--config", str(config), "--compare", "0.5", "1", "--share", "0.5", "--out", str(out)]
    main([*map(str, (*ends, photographs)), *options])
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[:2] for line in lines] == [["share", "+0.50"], ["share", "+1.00"]]
    picture = torch.rand(3, 48, 64, generator=torch.Generator().manual_seed(0))
    codec = Codec(out)
    assert codec.decompress(codec.compress(picture, quality=20)).shape == picture.shape
    written = load_model(out).analysis.head.weight
    assert torch.equal(written, average(*ends, 0.5).analysis.head.weight.half().float())


@pytest.mark.parametrize(
    "options", [[], ["--share", "0.5"], ["--out", "x.safetensors"], ["--share", "2", "--out", "x"]]
)
def test_the_command_says_what_it_needs(options, ends, photographs, capsys):
    with pytest.raises(SystemExit) as stopped:
        main([*map(str, (*ends, photographs)), *options])
    assert stopped.value.code == 1
    assert "error: " in capsys.readouterr().err
