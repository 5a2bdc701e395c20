"""What a run shows: the bar on the terminal, and the picture of its log."""

from __future__ import annotations

import json
import sys

import pytest
from PIL import Image
from training import short

from aicr_ext.train import loop, plot
from aicr_ext.train.journal import Journal


def test_the_bar_shows_progress_and_the_last_report(tmp_path, capsys):
    with Journal(tmp_path / "log.jsonl", bar=True) as journal:
        journal.write(50, 9.87, {"loss": 1.5, "bpp": 0.25, "psnr": 31.0})
        journal.progress(0.5)
        journal._bar.refresh()
    assert "50%" in (shown := capsys.readouterr().err)
    assert "step 50, loss 1.500, bpp 0.250, psnr 31.000" in shown
    assert json.loads((tmp_path / "log.jsonl").read_text())["seconds"] == 9.9


def test_a_line_that_was_cut_off_is_dropped(tmp_path):
    log = write_log(tmp_path / "run" / "log.jsonl", 3)
    whole = log.read_bytes()
    log.write_bytes(whole + b'{"step": 4, "sec')
    with Journal(log, bar=False) as journal:
        journal.write(5, 1.0, {"loss": 0.5})
    assert log.read_bytes().startswith(whole)
    assert [entry["step"] for entry in plot.read_log(log)] == [0, 1, 2, 3, 5]


def test_a_damaged_log_does_not_make_a_run_fail(photographs, tmp_path, tiny, monkeypatch):
    monkeypatch.setattr("aicr_ext.train.loop.draw", plot.draw)
    options, said = short(photographs, tmp_path / "run", max_steps=2), []
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "log.jsonl").write_text("no line of a log\n")
    assert loop.train(options, said.append).is_file()
    assert [line for line in said if "no curve.png" in line]


def test_no_bar_and_no_file(capsys):
    with Journal(None, bar=False) as journal:
        journal.write(1, 0.0, {"loss": 1.5, "bpp": 0.25, "psnr": 31.0})
        journal.progress(0.5)
    assert capsys.readouterr().err == ""


def write_log(path, steps):
    path.parent.mkdir()
    entries = [{"step": 0, "seconds": 0.0, "run": {}}]
    for step in range(1, steps):
        entries.append({"step": step, "seconds": step / 2, "loss": 1 / step, "bpp": 0.5, "psnr": 30.0})
    entries.append({"step": steps, "seconds": steps / 2, "valid_clean": 0.2})
    path.write_text("".join(json.dumps(entry) + "\n" for entry in entries))
    return path


def test_several_logs_in_one_picture(tmp_path, monkeypatch):
    logs = [write_log(tmp_path / name / "log.jsonl", steps) for name, steps in (("a", 5), ("b", 500))]
    plot.main([*map(str, logs), "--out", str(tmp_path / "both.png")])
    with Image.open(tmp_path / "both.png") as picture:
        assert picture.size[0] > 800
    assert {p.name for p in tmp_path.iterdir()} == {"a", "b", "both.png"}


def test_long_curves_are_averaged():
    points = [(float(i), i / 2, 1.0 + i % 2) for i in range(1000)]
    thin = plot._thinned(points)
    assert len(thin) == 100
    assert thin[0] == (4.5, 2.25, 1.5)
    assert plot._thinned(points[:99]) == points[:99]


@pytest.mark.parametrize("text", ["no json", "[1]", '{"step": 1}'])
def test_what_is_no_log(text, tmp_path, capsys):
    (tmp_path / "x.jsonl").write_text(text)
    with pytest.raises(SystemExit):
        plot.main([str(tmp_path / "x.jsonl"), "--out", str(tmp_path / "x.png")])
    assert "x.jsonl: line 1 is no line of a training log" in capsys.readouterr().err
    assert not (tmp_path / "x.png").exists()


@pytest.mark.parametrize("there", [True, False])
def test_a_run_ends_with_its_curve_if_it_can(there, photographs, tmp_path, tiny, monkeypatch):
    monkeypatch.setattr(loop, "draw", plot.draw)
    if not there:
        monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    said = []
    loop.train(short(photographs, tmp_path / "run", max_steps=2), said.append)
    assert (tmp_path / "run" / "curve.png").exists() is there
    assert sum("needs matplotlib" in line for line in said) == (not there)
