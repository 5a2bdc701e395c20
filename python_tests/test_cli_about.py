"""What ``aicr`` tells about files, about the installation and about itself."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from shell import aicr

import aicr_ext
from aicr_ext import cli, cli_options, doctor
from aicr_ext.cli import FAILED, INTERRUPTED, OK, SETUP, USAGE
from aicr_ext.model.precision import PRECISIONS


def test_info(here: Path, compressed: bytes, capsys: pytest.CaptureFixture[str]) -> None:
    Path("a.aicr").write_bytes(compressed)
    assert aicr("info", "a.aicr", "--json") == OK
    fields = json.loads(capsys.readouterr().out)
    assert (fields["width"], fields["height"], fields["model"], fields["quality"]) == (64, 48, "aicr-t", 32)
    assert fields["total_bytes"] == len(compressed)
    assert (fields["version"], fields["streams"]) == (1, 1)
    assert fields["bpp"] == pytest.approx(8 * len(compressed) / (64 * 48))
    assert all(size >= 0 for size in fields["sections"].values())
    assert 0 < sum(fields["sections"].values()) <= len(compressed)
    assert aicr("info", "a.aicr") == OK
    text = capsys.readouterr().out
    for part in ("64 x 48", "aicr-t", fields["weight_hash"], "version 1, 1 stream\n", f"{len(compressed):,} ("):
        assert part in text


def test_doctor(capsys: pytest.CaptureFixture[str]) -> None:
    assert aicr("doctor", "--json") == OK
    report = json.loads(capsys.readouterr().out)
    assert report["healthy"]
    assert report["problems"] == []
    assert report["package"]["version"] == aicr_ext.__version__
    assert report["native"]["_C"]["loaded"]
    assert report["coder_isa"] in ("scalar", "avx2", "avx512")
    assert report["libraries"].keys() >= {"torch", "numpy", "PIL"}
    assert all(len(entry["sha256"]) == 64 for entry in report["weights"])
    assert aicr("doctor") == OK
    text = capsys.readouterr().out
    for part in (aicr_ext.__version__, "_C", "threads", "self test", report["weights"][0]["sha256"][:16]):
        assert part in text
    assert text.splitlines()[-1] == "everything works"


def test_doctor_reports_what_is_broken(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def explode(*_: object, **__: object) -> None:
        raise RuntimeError("out of luck")

    broken = {"loaded": False, "path": None, "reason": "undefined symbol"}
    monkeypatch.setattr(aicr_ext, "compress", explode)
    monkeypatch.setattr(aicr_ext._native, "native_status", lambda: {"_C": broken, "build": {}})
    monkeypatch.setattr(doctor, "LIBRARIES", ("numpy", "no_such_library"))
    assert aicr("doctor") == SETUP
    text = capsys.readouterr().out
    assert "no_such_library NOT USABLE" in text
    assert "not loaded: undefined symbol" in text
    assert "  self test: RuntimeError out of luck" in text
    assert aicr("doctor", "--json") == SETUP
    report = json.loads(capsys.readouterr().out)
    assert not report["healthy"]
    assert len(report["problems"]) == 3


@pytest.mark.parametrize("argv", [["--help"], ["compress", "--help"], ["doctor", "--help"]])
def test_help_documents_the_exit_codes(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert aicr(*argv) == OK
    text = capsys.readouterr().out
    page = (Path(__file__).parent.parent / "docs" / "cli.md").read_text()
    for code in (OK, FAILED, USAGE, SETUP, INTERRUPTED):
        assert f"\n  {code} " in text
        assert f"\n| {code} |" in page
    assert cli.EXIT_CODES in text


def test_precisions_are_those_of_the_networks() -> None:
    assert cli_options.PRECISIONS == PRECISIONS


def test_a_reader_that_goes_away_is_no_error(here: Path, compressed: bytes) -> None:
    Path("a.aicr").write_bytes(compressed)
    reader, writer = os.pipe()
    os.close(reader)
    command = [sys.executable, "-m", "aicr_ext", "info", "a.aicr"]
    done = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE, text=True)
    os.close(writer)
    assert (done.returncode, done.stderr) == (OK, "")


def test_as_a_program_without_loading_torch(tmp_path: Path) -> None:
    version = subprocess.run(
        [sys.executable, "-m", "aicr_ext", "--version"], cwd=tmp_path, capture_output=True, text=True
    )
    assert (version.returncode, version.stdout) == (OK, f"aicr_ext {aicr_ext.__version__}\n")
    code = (
        "import sys; from aicr_ext.cli import main; main(['--help']); "
        "sys.exit(sum(name in sys.modules for name in ('torch', 'numpy', 'PIL')))"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True).returncode == 0
