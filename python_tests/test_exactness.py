"""The check of benchmarks/exactness.py, on little: it passes here, and it would notice."""

from __future__ import annotations

import csv
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from pictures import smooth

from aicr_ext import _native
from benchmarks import exactness

ROOT = Path(__file__).parents[1]


@pytest.mark.skipif(not _native.HAS_OPS, reason="native operators not built")
def test_instruction_sets_threads_and_batches_agree(tmp_path):
    for number in range(3):
        smooth(64 + 16 * (number == 2), 48).save(tmp_path / f"{number}.png")
    job = [sys.executable, "-m", "benchmarks.exactness", str(tmp_path), "--sums", "1000000", "--qualities", "20"]
    job += ["--threads", "2", "--batch", "2", "--csv", str(tmp_path / "out.csv")]
    done = subprocess.run(job, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stdout + done.stderr
    rows = list(csv.DictReader((tmp_path / "out.csv").read_text().splitlines()))
    assert [row["instruction set"] for row in rows] == _native.require_C().coder_isas()
    assert all(row["files"] == "3" and int(row["sums"]) > 1_000_000 for row in rows)


def test_a_wrong_sum_is_counted(monkeypatch):
    def wrong(*arguments):
        result = exactness.integer_linear_reference(*arguments)
        result[5, 7] ^= 1
        return result

    monkeypatch.setattr(exactness, "integer_linear", wrong)
    assert exactness.check_sums(1)["sums that differ"] == 1


def test_another_file_or_latent_is_counted(tmp_path):
    smooth().save(tmp_path / "a.png")
    assert exactness.check_pictures([tmp_path / "a.png"], [20], 1, tmp_path)["files that differ"] == 0
    (tmp_path / "a-20.latent").write_text("another")
    found = exactness.check_pictures([tmp_path / "a.png"], [20, 21], 1, tmp_path)
    assert found == {"files": 2, "files that differ": 0, "latents that differ": 1}


@pytest.mark.parametrize("what", ["sums", "latents", "files"])
def test_a_difference_is_a_failure(what, monkeypatch):
    monkeypatch.setattr(exactness._native, "require_C", lambda: SimpleNamespace(coder_isas=lambda: ["scalar"]))
    monkeypatch.setattr(exactness, "run", lambda *_: {"instruction set": "scalar", f"{what} that differ": 1})
    monkeypatch.setattr(sys, "argv", ["exactness"])
    with pytest.raises(SystemExit, match=f"{what} differ"):
        exactness.main()
