"""The tables of docs/results.md are those of the measurements beside the benchmarks."""

from __future__ import annotations

import csv
import functools
import json

import numpy as np
import pytest

import aicr_ext
from aicr_ext.evaluate.metrics import psnr
from aicr_ext.images import read_image
from benchmarks import result_tables
from benchmarks.entropy import SAMPLE

RESULTS = result_tables.PAGE.parent.parent / "benchmarks" / "results"
shipped = functools.cache(aicr_ext.Codec)


def test_the_page_has_the_tables_of_the_measurements(monkeypatch, tmp_path):
    page = result_tables.PAGE.read_text(encoding="utf-8")
    made = result_tables.tables()
    assert len(made) == 9
    assert result_tables.in_place(page, made) == page, "run python -m benchmarks.result_tables --write"
    copy = tmp_path / "results.md"
    shorter = made[0].rsplit("\n", 1)[0]
    copy.write_text(page.replace(made[0], shorter), encoding="utf-8")
    monkeypatch.setattr(result_tables, "PAGE", copy)
    result_tables.main(["--write"])
    assert copy.read_text(encoding="utf-8") == page


def test_a_table_without_a_place_is_an_error():
    page = "text\n\n| a |\n|---|\n| 1 |\n\nmore\n"
    assert result_tables.in_place(page, ["| a |\n|---|\n| 2 |\n| 3 |"]) == page.replace("| 1 |", "| 2 |\n| 3 |")
    with pytest.raises(ValueError, match=r"expected one table that begins with '\| b \|', found 0"):
        result_tables.in_place(page, ["| b |"])
    with pytest.raises(ValueError, match="found 2"):
        result_tables.in_place(page + page, ["| a |"])


def test_the_command_prints_them(capsys):
    result_tables.main([])
    printed = capsys.readouterr().out
    assert all(table in printed for table in result_tables.tables())


@pytest.mark.parametrize("results", sorted(path.parent.name for path in RESULTS.glob("*/results.json")))
def test_the_measurements_are_of_the_shipped_weights(results):
    codecs = json.loads((RESULTS / results / "results.json").read_text())["codecs"]
    ours = [codec for codec in codecs if codec.get("weight_hash")]
    assert ours
    for codec in ours:
        model = codec["identity"].partition(",")[0]
        assert codec["weight_hash"] == shipped(model).weight_hash.hex(), codec["name"]


@pytest.mark.parametrize("name, model", [("aicr-t", "aicr-t"), ("clean", "aicr-t-clean")])
def test_the_sample_is_coded_as_it_was_measured(name, model):
    """As far as another processor's rounding may change it."""
    picture = np.array(read_image(SAMPLE))
    with (RESULTS / "kodak" / "pictures.csv").open(newline="") as file:
        rows = [r for r in csv.DictReader(file) if r["picture"] == SAMPLE.name and r["codec"] == name]
    assert len(rows) == 8
    for row in rows[::4]:
        data = shipped(model).compress(picture, quality=int(row["quality"]))
        decoded = shipped(model).decompress(data).mul(255).round().byte().permute(1, 2, 0).numpy()
        assert len(data) == pytest.approx(int(row["bytes"]), rel=0.01)
        assert psnr(decoded, picture) == pytest.approx(float(row["psnr"]), abs=0.05)
