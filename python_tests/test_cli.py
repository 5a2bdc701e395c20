"""The ``aicr`` command, in this process: what it writes, what it refuses, and the exit code it gives."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from pictures import pixels, smooth
from PIL import Image
from shell import aicr

import aicr_ext
from aicr_ext import files, images
from aicr_ext.cli import FAILED, INTERRUPTED, OK, SETUP, USAGE, main
from aicr_ext.images import read_image


@pytest.fixture(autouse=True)
def same_threads() -> Iterator[None]:
    """Gives the number of threads back that ``--threads`` sets."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def names(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def error_lines(capsys: pytest.CaptureFixture[str]) -> list[str]:
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "Traceback" not in captured.err
    return [line for line in captured.err.splitlines() if line.startswith("aicr: error: ")]


def test_precision_reaches_the_codec(here: Path) -> None:
    assert aicr("compress", "photo.png", "small.aicr", "--precision", "bfloat16") == OK
    assert Path("small.aicr").read_bytes() == aicr_ext.compress(smooth(), precision="bfloat16")
    assert aicr("decompress", "small.aicr", "low.png", "--precision", "bfloat16") == OK
    decoded = aicr_ext.decompress(Path("small.aicr").read_bytes(), precision="bfloat16")
    low = np.asarray(read_image("low.png"))
    assert np.array_equal(low, decoded.mul(255).round().byte().permute(1, 2, 0).numpy())


def test_one_file_there_and_back(here: Path, compressed: bytes, capsys: pytest.CaptureFixture[str]) -> None:
    assert aicr("compress", "photo.png", "small.aicr") == OK
    assert Path("small.aicr").read_bytes() == compressed
    assert aicr("decompress", "small.aicr", "back.png") == OK
    expected = aicr_ext.decompress(compressed).permute(1, 2, 0).mul(255).round().numpy()
    assert np.array_equal(pixels(read_image("back.png")), expected)
    captured = capsys.readouterr()
    assert captured.out == ""
    first, second = captured.err.splitlines()
    bpp = 8 * len(compressed) / (64 * 48)
    assert first.startswith(f"aicr: photo.png -> small.aicr: 64x48, {len(compressed):,} bytes, {bpp:.3f} bpp, ")
    assert second.startswith("aicr: small.aicr -> back.png: 64x48, ")
    assert names(here) == ["back.png", "photo.png", "small.aicr"]


def test_names_without_out(here: Path) -> None:
    assert aicr("compress", "photo.png") == OK
    assert names(here) == ["photo.aicr", "photo.png"]
    Path("photo.png").unlink()
    assert aicr("decompress", "photo.aicr", "--format", "webp") == OK
    assert names(here) == ["photo.aicr", "photo.webp"]
    assert Image.open("photo.webp").format == "WEBP"
    Path("into").mkdir()
    assert aicr("decompress", "photo.aicr", "into") == OK
    assert names(here / "into") == ["photo.png"]


def test_streams_reach_the_file(here: Path) -> None:
    assert aicr("compress", "photo.png", "parts.aicr", "--streams", "7") == OK
    assert aicr_ext.read_info(Path("parts.aicr").read_bytes()).streams == 7


def test_feedback_can_be_left_out(here: Path) -> None:
    for name, options in (("with", []), ("without", ["--no-feedback"])):
        assert aicr("compress", "photo.png", f"{name}.aicr", "-q", "50", *options) == OK
    image = read_image("photo.png")
    for name, feedback in (("with", True), ("without", False)):
        expected = aicr_ext.compress(image, quality=50, feedback=feedback)
        assert Path(f"{name}.aicr").read_bytes() == expected
    assert Path("with.aicr").read_bytes() != Path("without.aicr").read_bytes()


def test_effort_reaches_the_file(here: Path) -> None:
    assert aicr("compress", "photo.png", "searched.aicr", "--effort", "2") == OK
    assert Path("searched.aicr").read_bytes() == aicr_ext.compress(read_image("photo.png"), effort=2)
    assert aicr("compress", "photo.png", "never.aicr", "--effort", "-1") == USAGE
    assert not Path("never.aicr").exists()


def test_quality_reaches_the_file(here: Path) -> None:
    for quality in ("0", "63"):
        assert aicr("compress", "photo.png", f"{quality}.aicr", "--quality", quality) == OK
        assert aicr_ext.read_info(Path(f"{quality}.aicr").read_bytes()).quality == int(quality)


def test_quiet_says_nothing(here: Path, capfd: pytest.CaptureFixture[str]) -> None:
    torch.set_num_threads(2)
    assert aicr("compress", "photo.png", "--quiet", "--threads", "1", "--device", "cpu") == OK
    assert aicr("decompress", "photo.aicr", "out.png", "--quiet") == OK
    assert capfd.readouterr() == ("", "")
    assert torch.get_num_threads() == 1


@pytest.mark.parametrize("suffix", ["webp", "tif", "bmp", "ppm", "jpg", "PNG"])
def test_suffix_of_out_chooses_the_format(here: Path, compressed: bytes, suffix: str) -> None:
    Path("a.aicr").write_bytes(compressed)
    assert aicr("decompress", "a.aicr", f"a.{suffix}") == OK
    kind = {"tif": "TIFF", "jpg": "JPEG"}.get(suffix, suffix.upper())
    assert Image.open(f"a.{suffix}").format == kind


def make_folder(root: Path) -> None:
    """Three good pictures in two levels, two of them alike but for the suffix, one bad, two other files."""
    (root / "sub").mkdir(parents=True)
    smooth().save(root / "a.png")
    smooth().save(root / "a.jpg")
    smooth(32, 32).save(root / "sub" / "b.PNG")
    (root / "bad.png").write_bytes(b"no picture")
    (root / "notes.txt").write_text("x")
    (root / "sub" / "raw.cr2").write_text("x")


def test_folder_is_mirrored_and_one_bad_file_does_not_stop_it(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_folder(here / "in")
    assert aicr("compress", "in", "out") == FAILED
    good = ["a.jpg.aicr", "a.png.aicr", "sub/b.aicr"]
    assert names(here / "out") == good
    captured = capsys.readouterr()
    (error,) = [line for line in captured.err.splitlines() if "error" in line]
    assert error.startswith("aicr: error: in/bad.png: not an image")
    summary = "aicr: 3 of 4 files compressed, 1 failed, 2 skipped (other file types)"
    assert captured.err.splitlines()[-1] == summary

    assert aicr("decompress", "out", "back", "--format", "bmp") == OK
    assert names(here / "back") == ["a.jpg.bmp", "a.png.bmp", "sub/b.bmp"]
    assert read_image("back/sub/b.bmp").size == (32, 32)


def test_no_two_pictures_of_a_folder_become_one_file(here: Path) -> None:
    """Where a.jpg keeps its suffix it has the name that a.jpg.webp would have had."""
    (here / "in").mkdir()
    sizes = {"a.jpg": (16, 16), "a.png": (32, 16), "a.jpg.webp": (48, 16), "b.png": (64, 16)}
    for name, size in sizes.items():
        smooth(*size).save(here / "in" / name)
    assert aicr("compress", "in", "out") == OK
    assert names(here / "out") == ["a.jpg.aicr", "a.jpg.webp.aicr", "a.png.aicr", "b.aicr"]
    for name in ("a.jpg", "a.jpg.webp", "a.png"):
        info = aicr_ext.read_info((here / "out" / f"{name}.aicr").read_bytes())
        assert (info.width, info.height) == sizes[name]


@pytest.mark.parametrize("alone", [False, True])
def test_a_folder_that_cannot_be_read_is_an_error(
    alone: bool, here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (here / "in" / "sub").mkdir(parents=True)
    if not alone:
        smooth(16, 16).save(here / "in" / "a.png")
    look = os.scandir

    def refuse(path: str) -> object:
        if str(path).endswith("sub"):
            raise PermissionError(13, "Permission denied", str(path))
        return look(path)

    monkeypatch.setattr(os, "scandir", refuse)
    assert aicr("compress", "in", "out") == FAILED
    monkeypatch.undo()
    said = capsys.readouterr().err.splitlines()
    assert "aicr: error: in/sub: Permission denied" in said
    if not alone:
        assert said[-1] == "aicr: 1 of 1 files compressed, 1 folders not read"
        assert names(here / "out") == ["a.aicr"]


def test_out_inside_in_is_not_searched(here: Path) -> None:
    make_folder(here / "in")
    (here / "in" / "bad.png").unlink()
    for _ in range(2):
        assert aicr("compress", "in", "in/small", "--force") == OK
        assert names(here / "in" / "small") == ["a.jpg.aicr", "a.png.aicr", "sub/b.aicr"]
    assert aicr("decompress", "in/small", "in/small") == OK  # in place is allowed too
    assert len(names(here / "in" / "small")) == 6
    assert aicr("decompress", "in/small", "in/small/deeper", "--quiet") == OK
    assert names(here / "in" / "small" / "deeper") == ["a.jpg.png", "a.png.png", "sub/b.png"]


def test_one_model_serves_a_folder(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_folder(here / "in")
    made = []

    class Counting(aicr_ext.Codec):
        def __init__(self, *args: object, **kwargs: object) -> None:
            made.append(args)
            super().__init__(*args, **kwargs)

    monkeypatch.setattr(aicr_ext, "Codec", Counting)
    assert main(["compress", "in", "out", "--quiet"]) == FAILED
    assert main(["decompress", "out", "back", "--quiet"]) == OK
    assert made == [("aicr-t",), ("aicr-t",)]  # one for each command


def test_existing_files(here: Path, compressed: bytes, capsys: pytest.CaptureFixture[str]) -> None:
    Path("photo.aicr").write_bytes(b"precious")
    assert aicr("compress", "photo.png") == FAILED
    assert "photo.aicr exists; use --force or --skip-existing" in capsys.readouterr().err
    assert aicr("compress", "photo.png", "--skip-existing") == OK
    assert Path("photo.aicr").read_bytes() == b"precious"
    for option in ("--force", "--overwrite", "-f"):
        Path("photo.aicr").write_bytes(b"precious")
        assert aicr("compress", "photo.png", option) == OK
        assert Path("photo.aicr").read_bytes() == compressed
    assert aicr("compress", "photo.png", "--force", "--skip-existing") == USAGE


def test_folder_resumes(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_folder(here / "in")
    (here / "in" / "bad.png").unlink()
    assert aicr("compress", "in", "out") == OK
    Path("out/sub/b.aicr").unlink()
    Path("out/a.png.aicr").write_bytes(b"older")
    capsys.readouterr()
    assert aicr("compress", "in", "out", "--skip-existing") == OK
    assert "1 of 3 files compressed, 2 already there" in capsys.readouterr().err
    assert Path("out/a.png.aicr").read_bytes() == b"older"
    assert Path("out/sub/b.aicr").exists()


def test_in_and_out_are_never_one_file(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    os.link("photo.png", "same.aicr")
    before = Path("photo.png").read_bytes()
    assert aicr("compress", "photo.png", "same.aicr", "--force") == FAILED
    assert "IN and OUT are the same file" in capsys.readouterr().err
    assert Path("photo.png").read_bytes() == before


@pytest.mark.parametrize(
    "argv",
    [
        [],
        ["explode"],
        ["compress"],
        ["compress", "photo.png", "--quality", "64"],
        ["compress", "photo.png", "--quality", "-1"],
        ["compress", "photo.png", "--quality", "best"],
        ["compress", "photo.png", "--streams", "0"],
        ["compress", "photo.png", "--streams", "257"],
        ["compress", "photo.png", "--threads", "0"],
        ["compress", "photo.png", "small.png"],
        ["compress", "folder"],
        ["compress", "folder", "photo.png"],
        ["decompress", "photo.png", "photo.xyz"],
        ["decompress", "photo.png", "nosuffix"],
        ["decompress", "photo.png", "a.png", "--format", "jpg"],
        ["decompress", "photo.png", "--format", "gif"],
        ["decompress", "photo.png", "--max-pixels", "0"],
        ["info"],
    ],
)
def test_wrong_usage_touches_nothing(here: Path, argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    Path("folder").mkdir()
    assert aicr(*argv) == USAGE
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "error: " in captured.err.splitlines()[-1]
    assert names(here) == ["photo.png"]


def test_bad_input_is_one_line_each(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cases = [
        (["compress", "none.png"], "none.png: No such file or directory"),
        (["decompress", "none.aicr"], "none.aicr: No such file or directory"),
        (["info", "none.aicr"], "none.aicr: No such file or directory"),
        (["decompress", "photo.png", "b.png"], "photo.png: "),
        (["info", "photo.png"], "photo.png: "),
        (["compress", "photo.png", "missing/a.aicr"], "missing/a.aicr: No such file or directory"),
    ]
    for argv, message in cases:
        assert aicr(*argv) == FAILED, argv
        (line,) = error_lines(capsys)
        assert line.startswith(f"aicr: error: {message}"), argv
    assert names(here) == ["photo.png"]


def test_transparent_picture_says_what_to_do(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Image.new("RGBA", (16, 16)).save("glass.png")
    assert aicr("compress", "glass.png") == FAILED
    (line,) = error_lines(capsys)
    assert "glass.png: has transparent pixels" in line
    assert "flatten" in line


def test_damaged_files_are_errors(here: Path, compressed: bytes, capsys: pytest.CaptureFixture[str]) -> None:
    flipped = bytearray(compressed)
    flipped[len(flipped) // 2] ^= 16
    for index, data in enumerate([b"", compressed[:10], compressed[:-1], compressed + b"x", bytes(flipped)]):
        Path("bad.aicr").write_bytes(data)
        assert aicr("decompress", "bad.aicr", "bad.png") == FAILED, index
        (line,) = error_lines(capsys)
        assert line.startswith("aicr: error: bad.aicr: ")
    assert names(here) == ["bad.aicr", "photo.png"]


def test_max_pixels(here: Path, compressed: bytes, capsys: pytest.CaptureFixture[str]) -> None:
    Path("a.aicr").write_bytes(compressed)
    assert aicr("decompress", "a.aicr", "--max-pixels", str(64 * 48 - 1)) == FAILED
    assert len(error_lines(capsys)) == 1
    assert aicr("decompress", "a.aicr", "--max-pixels", str(64 * 48)) == OK


def test_empty_folder(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("empty").mkdir()
    assert aicr("compress", "empty", "out") == FAILED
    assert error_lines(capsys) == ["aicr: error: empty: nothing to do here, 0 files of other types"]
    assert names(here) == ["photo.png"]


@pytest.mark.parametrize("options", [["--model", "no-such-model"], ["--device", "no-such-device"]])
def test_set_up_that_fails_has_its_own_code(here: Path, options: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    Path("in").mkdir()
    smooth().save("in/a.png")
    smooth().save("in/b.png")
    assert aicr("compress", "in", "out", *options) == SETUP
    (line,) = error_lines(capsys)  # once, not once a file
    assert "cannot set up model 'no-such-model'" in line or "cannot use device 'no-such-device'" in line
    assert aicr("decompress", "in", "out", *options) == FAILED  # nothing to decompress, so nothing to set up
    Path("in/a.aicr").write_bytes(b"")
    capsys.readouterr()
    assert aicr("decompress", "in", "out", *options) == SETUP
    assert len(error_lines(capsys)) == 1
    assert not Path("out").exists()


def test_interrupt_keeps_finished_files_only(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    make_folder(here / "in")
    real = files.atomic_write
    written = []

    def second_is_interrupted(path: Path, data: bytes) -> None:
        if written:
            raise KeyboardInterrupt
        written.append(path)
        real(path, data)

    monkeypatch.setattr(files, "atomic_write", second_is_interrupted)
    assert aicr("compress", "in", "out") == INTERRUPTED
    assert names(here / "out") == ["a.jpg.aicr"]
    assert capsys.readouterr().err.splitlines()[-1] == "aicr: interrupted"


def test_a_kill_leaves_no_file_of_the_final_name(here: Path) -> None:
    """SIGKILL between the last byte and the new name, the latest moment at which something could be half done."""
    program = (
        "import os, time\n"
        "from aicr_ext import cli\n"
        "def stop(*names):\n"
        "    print('about to rename', flush=True)\n"
        "    time.sleep(600)\n"
        "os.replace = stop\n"
        "cli.main(['compress', 'photo.png', 'small.aicr', '--threads', '1'])\n"
    )
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) as child:
        try:
            assert child.stdout.readline() == "about to rename\n"
        finally:
            child.kill()
    left = [name for name in names(here) if name != "photo.png"]
    assert len(left) == 1
    assert left[0].startswith(".aicr-")
    assert left[0].endswith(".part")
    assert aicr("compress", "photo.png", "small.aicr") == OK  # what is left is in nobody's way


def test_debug_shows_the_traceback(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("bad.png").write_text("x")
    assert aicr("compress", "bad.png", "--debug") == FAILED
    text = capsys.readouterr().err
    assert "Traceback (most recent call last)" in text
    assert text.splitlines()[-1].startswith("aicr: error: bad.png: not an image")


def test_unexpected_errors_are_one_line_too(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def explode(path: Path) -> Image.Image:
        raise RuntimeError("a bug\nin two lines")

    monkeypatch.setattr(images, "read_image", explode)
    assert aicr("compress", "photo.png") == FAILED
    assert error_lines(capsys) == ["aicr: error: photo.png: RuntimeError: a bug in two lines"]


def test_warnings_are_lines_of_the_program(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    smooth().save("odd.png", icc_profile=b"not a profile")
    assert aicr("compress", "odd.png") == OK
    assert "aicr: warning: odd.png: colour profile ignored" in capsys.readouterr().err
    assert aicr("compress", "odd.png", "--quiet", "--force") == OK
    assert capsys.readouterr().err == ""


def test_progress_bar_only_on_a_terminal(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    make_folder(here / "in")
    assert aicr("compress", "in", "out") == FAILED
    assert "file/s" not in capsys.readouterr().err
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    assert aicr("compress", "in", "out", "--force") == FAILED
    assert "compress: " in capsys.readouterr().err
    assert aicr("compress", "in", "out", "--force", "--quiet") == FAILED
    assert "compress: " not in capsys.readouterr().err
