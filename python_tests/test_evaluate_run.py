"""`aicr eval` and what it is made of: measuring, resuming, tables, plots, sheets, messages."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from pictures import smooth
from PIL import Image
from shell import aicr

import aicr_ext
from aicr_ext import cli_eval
from aicr_ext.cli import FAILED, OK, SETUP, USAGE
from aicr_ext.errors import EvaluationError
from aicr_ext.evaluate import (
    Cascade,
    DataSet,
    ModelCodec,
    Options,
    Sample,
    Store,
    build_codecs,
    measure,
    open_folder,
    psnr,
)
from aicr_ext.evaluate.pictures import Crop, busiest, nearest_rate
from aicr_ext.evaluate.report import Report
from aicr_ext.evaluate.run import steps


class Counting:
    """JPEG that keeps its calls."""

    qualities = (20, 80)

    def __init__(self) -> None:
        (self.inner,) = build_codecs(["jpeg"])
        self.calls = 0

    def encode(self, image: np.ndarray, quality: float) -> bytes:
        self.calls += 1
        if image.mean() > 250:
            raise ValueError("too bright")
        return self.inner.encode(image, quality)

    def decode(self, data: bytes) -> np.ndarray:
        return self.inner.decode(data)


@pytest.fixture(scope="module")
def ours() -> ModelCodec:
    return ModelCodec()


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with ``clean/``, ``pairs/`` and ``real/``."""
    monkeypatch.chdir(tmp_path)
    for folder in ("clean", "pairs/input", "pairs/target", "real"):
        Path(folder).mkdir(parents=True)
    for name, size in (("a", (64, 48)), ("b", (50, 40))):
        image = smooth(*size)
        image.save(f"clean/{name}.png")
        image.save(f"pairs/target/{name}.png")
        image.point(lambda v: v * 9 // 10).save(f"pairs/input/{name}.jpg", quality=95)
        image.save(f"real/{name}.png")
    return tmp_path


def table(path: str) -> list[dict[str, str]]:
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def run(codec: Counting, identity: str = "one", *, fresh: bool = False, **options: object) -> list[dict]:
    cascade = Cascade(codec, name="c", identity=identity)
    with Store("out/pictures.csv", fresh=fresh) as store:
        return measure([open_folder("clean", **options)], [cascade], store)


def test_rate_and_quality_are_of_the_real_file(here: Path) -> None:
    rows = run(Counting())
    assert [(row["picture"], row["quality"]) for row in rows] == [
        *(("a.png", 20), ("a.png", 80)),
        *(("b.png", 20), ("b.png", 80)),
    ]
    image = np.array(smooth())
    data = Counting().encode(image, 80)
    row = rows[1]
    assert (row["bytes"], row["bpp"]) == (len(data), 8 * len(data) / (64 * 48))
    assert row["psnr"] == psnr(Counting().decode(data), image)
    assert row["ms_ssim"] is None  # too small a picture


def test_what_was_measured_is_not_measured_again(here: Path) -> None:
    codec = Counting()
    first = run(codec)
    assert codec.calls == 4
    assert run(codec) == first
    assert codec.calls == 4
    run(codec, identity="other weights")
    assert codec.calls == 8
    run(codec, degradation="gaussian_noise:sigma=25")
    assert codec.calls == 12
    smooth(32, 32).save("clean/a.png")
    run(codec)
    assert codec.calls == 14
    run(codec, fresh=True)
    assert codec.calls == 18
    # Everything stays: two identities, damaged pictures with their inputs, the picture that was replaced.
    assert len(table("out/pictures.csv")) == 4 + 4 + 6 + 2


def test_more_pictures_and_other_labels_need_only_what_is_new(here: Path) -> None:
    codec = Counting()
    run(codec, limit=1)
    assert codec.calls == 2
    run(codec)
    assert codec.calls == 4
    rows = run(codec, name="renamed")
    assert codec.calls == 4
    assert {row["dataset"] for row in rows} == {"renamed"}
    assert {row["dataset"] for row in table("out/pictures.csv")} == {"clean", "renamed"}


def test_cells_that_were_not_asked_for_before_are_measured(here: Path) -> None:
    cli = ["eval", "clean", "--out", "out", "--codecs", "aicr", "--qualities", "20", "--quiet"]
    assert aicr(*cli, "--no-estimate") == OK
    assert {row["estimated_bpp"] for row in table("out/pictures.csv")} == {""}
    assert aicr(*cli) == OK  # clean pictures: by default
    rows = table("out/pictures.csv")
    assert len(rows) == 2
    for row in rows:
        assert float(row["estimated_bpp"]) == pytest.approx(float(row["bpp"]), rel=0.5)


def test_interrupted_run_keeps_what_it_measured(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    codec = Counting()
    encode = codec.encode

    def interrupted(image: np.ndarray, quality: float) -> bytes:
        if codec.calls == 3:
            raise KeyboardInterrupt
        return encode(image, quality)

    monkeypatch.setattr(codec, "encode", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run(codec)
    monkeypatch.setattr(codec, "encode", encode)
    assert len(table("out/pictures.csv")) == 3
    run(codec)
    assert codec.calls == 4
    assert [path.name for path in Path("out").iterdir()] == ["pictures.csv"]


def test_failure_names_codec_quality_and_picture(here: Path) -> None:
    Image.new("RGB", (20, 20), "white").save("clean/c.png")
    with pytest.raises(EvaluationError, match=r"c at quality 20 on c\.png: ValueError: too bright"):
        run(Counting())
    assert len(table("out/pictures.csv")) == 4


def test_only_one_evaluation_writes_a_folder(here: Path) -> None:
    with Store("out/pictures.csv"), pytest.raises(ValueError, match="another evaluation is writing"):
        Store("out/pictures.csv").__enter__()
    run(Counting())


def test_other_files_are_not_taken_for_measurements(here: Path) -> None:
    Path("out").mkdir()
    for text in ("codec,quality\naicr-t,3\n", "", "dataset"):
        Path("out/pictures.csv").write_text(text)
        with pytest.raises(ValueError, match="not measurements of this version"):
            run(Counting())
        assert Path("out/pictures.csv").read_text() == text


def test_infinite_and_missing_values(here: Path) -> None:
    """A lossless codec has no finite PSNR; JSON has no infinity."""

    class Lossless(Counting):
        qualities = (1,)

        def encode(self, image: np.ndarray, quality: float) -> bytes:
            return b"%d %d " % image.shape[:2] + image.tobytes()

        def decode(self, data: bytes) -> np.ndarray:
            height, width, samples = data.split(b" ", 2)
            return np.frombuffer(samples, np.uint8).reshape(int(height), int(width), 3)

    rows = run(Lossless())
    assert {row["psnr"] for row in rows} == {float("inf")}
    assert run(Lossless()) == rows
    codec = Cascade(Lossless(), name="c", identity="one")
    report = Report([open_folder("clean")], [codec], rows)
    report.write(here / "out", {})
    means = json.loads(Path("out/results.json").read_text())["means"]
    assert means[0]["psnr"] is None
    assert means[0]["bpp"] == pytest.approx(24, rel=0.01)


def test_what_the_network_expects_is_not_told_of_a_search(here: Path, ours: ModelCodec) -> None:
    codecs = build_codecs(["aicr", "aicr:effort=2"], {"a": ours}, {"a": [20], "a:effort=2": [20]})
    with Store("out/pictures.csv") as store:
        sets, options = [open_folder("clean", limit=1)], Options(estimate=True, paper=True)
        rows = measure(sets, codecs, store, options)
    assert len(rows) == steps(sets, codecs, options)
    of = {(row["codec"], row["convention"]): row for row in rows}
    assert sorted(of) == [("a", "file"), ("a", "paper"), ("a:effort=2", "file")]
    assert of["a", "file"]["estimated_bpp"] > 0
    assert of["a:effort=2", "file"].get("estimated_bpp") is None


def test_paper_convention_sees_the_unclipped_noise(here: Path, ours: ModelCodec) -> None:
    codecs = build_codecs(["aicr", "jpeg"], {"aicr-t": ours}, {"aicr-t": [20], "jpeg": [50]})
    with Store("out/pictures.csv") as store:
        data = open_folder("clean", degradation="gaussian_noise:sigma=50", limit=1)
        rows = measure([data], codecs, store, Options(paper=True))
    (sample,) = data
    bits, decoded = ours.relaxed(sample.exact, 20)
    (paper,) = [row for row in rows if row["convention"] == "paper"]
    assert paper["codec"] == "aicr-t"
    assert paper["bytes"] is None
    assert paper["bpp"] == pytest.approx(bits / (64 * 48))
    assert paper["psnr"] == pytest.approx(psnr(decoded, sample.target / 255, peak=1))
    assert [row["codec"] for row in rows] == ["input", "aicr-t", "aicr-t", "jpeg"]


# the command


def test_command_end_to_end(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    curves = {"vtm": {"bpp": [0.5, 1, 2, 4], "psnr": [30, 33, 36, 39], "source": "x"}, "hm": {"bpp": [1], "psnr": [9]}}
    Path("anchors.json").write_text(json.dumps(curves))
    Path("clean/a.png").unlink()
    smooth(176, 168).save("clean/a.png")
    command = [
        *("eval", "clean", "--degrade", "none", "gaussian_noise:sigma=25", "--out", "deep/out", "--limit", "1"),
        *("--codecs", "aicr", "nlm+avif", "jpeg", "--qualities", "10", "40", "60", "avif=20,60", "jpeg=10,50,80"),
        *("--anchors", "anchors.json:vtm", "--anchors", "clean+gaussian_noise:sigma=25=anchors.json:hm", "--paper"),
        *("--plot", "plots/curves.png", "--sheet", "sheets/crops.png", "--crop", "0,0,64"),
    ]
    assert aicr(*command) == OK
    out = capsys.readouterr().out
    assert "## clean\n" in out
    assert "## clean+gaussian_noise:sigma=25\n" in out
    assert "The input itself: 20." in out
    assert Path("deep/out/report.md").read_text() == out
    written = sorted(str(path) for path in Path("deep").rglob("*") if path.is_file())
    names = ("bd.csv", "means.csv", "pictures.csv", "report.md", "results.json", "sizes.csv")
    assert written == [f"deep/out/{name}" for name in names]

    means = {(r["degradation"], r["codec"], r["quality"], r["convention"]): r for r in table("deep/out/means.csv")}
    assert len(means) == (3 + 3 + 2 + 3) * 2 + 1
    clean = means["", "aicr-t", "40", "file"]
    assert abs(float(clean["estimated_bpp"]) - float(clean["bpp"])) < 0.05
    assert 0.8 < float(clean["ms_ssim"]) < 1
    assert means["gaussian_noise:sigma=25", "aicr-t", "40", "file"]["estimated_bpp"] == ""
    against = [(r["degradation"], r["against"]) for r in table("deep/out/bd.csv")]
    assert against == [
        *(("", "nlm+avif"), ("", "jpeg"), ("", "vtm (published)")),
        *(("gaussian_noise:sigma=25", other) for other in ("nlm+avif", "jpeg", "hm (published)")),
    ]
    results = json.loads(Path("deep/out/results.json").read_text())
    assert len(results["codecs"][0]["weight_hash"]) == 64
    assert len(results["rows"]) == len(means)
    assert str(here) not in json.dumps(results)

    assert sorted(path.name for path in Path("plots").iterdir()) == [
        "curves-clean-gaussian-noise-sigma-25.png",
        "curves-clean.png",
    ]
    assert Image.open("plots/curves-clean.png").width > 800
    sheet = Image.open("sheets/crops-clean-gaussian-noise-sigma-25.png")
    overview = round(176 * 64 / 168)
    assert sheet.width == overview + 5 * (64 + 6)  # input, target, three codecs
    assert np.array_equal(np.array(sheet)[:64, overview + 76 : overview + 140], np.array(smooth(176, 168))[:64, :64])


def test_models_side_by_side(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    weights = Path(aicr_ext.__file__).parent / "weights" / "aicr-t.safetensors"
    Path("new.safetensors").write_bytes(weights.read_bytes())
    command = ["--out", "out", "--codecs", "aicr", "nlm+clean", "--qualities", "20", "50"]
    models = ["--model", "clean=aicr-t", "-m", "new.safetensors"]
    assert aicr("eval", "pairs", "--no-target", "real", "--limit", "1", *command, *models) == OK
    assert "MS-SSIM is empty" in capsys.readouterr().out
    sizes = {(r["dataset"], r["codec"], r["against"]): r for r in table("out/sizes.csv")}
    assert float(sizes["real", "new", "clean"]["bytes_mean"]) == 0
    assert ("pairs", "clean", "nlm+clean") in sizes
    assert not any(r["dataset"] == "real" for r in table("out/bd.csv"))
    real = [r for r in table("out/means.csv") if r["dataset"] == "real"]
    assert {r["psnr"] for r in real} == {""}
    assert len(real) == 6
    inputs = [r for r in table("out/means.csv") if r["codec"] == "input"]
    assert [(r["dataset"], r["quality"], r["bpp"]) for r in inputs] == [("pairs", "", "")]


def test_sizes_at_equal_quality(here: Path, ours: ModelCodec) -> None:
    codecs = build_codecs(["aicr"], {"one": ours, "two": ours})
    rows = [
        *(_row("one", 0, 0.9), _row("one", 9, 1.6), _row("one", 18, 9)),
        *(_row("two", 0, 1.0), _row("two", 9, 2.0)),
    ]
    found, back = Report([open_folder("real", target=False)], codecs, rows).sizes
    assert (found["codec"], found["against"], found["qualities"]) == ("one", "two", 2)
    assert [found[k] for k in ("bytes_mean", "bytes_least", "bytes_most")] == pytest.approx([-15, -20, -10])
    assert back["codec"] == "two"


def _row(codec: str, quality: int, bpp: float) -> dict:
    row = dict.fromkeys(["psnr", "ms_ssim", "ms_ssim_db", "lpips", "estimated_bpp", "bytes", "width", "height"])
    names = {"dataset": "real", "degradation": "", "picture": "a", "convention": "file", "pixels": "", "identity": ""}
    return row | names | {"codec": codec, "quality": quality, "bpp": bpp}


def test_mean_is_of_all_pictures_or_of_none(here: Path) -> None:
    """MS-SSIM over the pictures that are large enough would be of another set than the rate beside it."""
    smooth(176, 168).save("clean/large.png")
    rows = run(Counting())
    assert [row["ms_ssim"] is None for row in rows] == [True] * 4 + [False] * 2
    report = Report([open_folder("clean")], [Cascade(Counting(), name="c", identity="one")], rows)
    assert [row["ms_ssim"] for row in report.means] == [None, None]
    assert report.means[0]["psnr"] == pytest.approx(np.mean([row["psnr"] for row in rows[::2]]))


def test_crops() -> None:
    image = np.full((100, 150, 3), 90, np.uint8)
    image[60:90, 100:130:2] = 200
    place = busiest(Sample("x", image, image, image / np.float32(255)), 40)
    left, top, right, bottom = place.box(image)
    assert left <= 100 < 130 <= right + 10
    assert top <= 60 < 90 <= bottom + 10
    assert Crop(140, 95, 40).box(image) == (110, 60, 150, 100)
    assert Crop(0, 0, 500).box(image) == (0, 0, 150, 100)
    rows = [{"codec": "c", "bpp": bpp} for bpp in (0.1, 0.4, 1.0)]
    assert nearest_rate(rows, "c", 0.6)["bpp"] == 0.4


@pytest.mark.parametrize(
    "arguments, code, message",
    [
        ([], USAGE, "no FOLDER given"),
        (["nowhere"], FAILED, "nowhere: no such folder"),
        (["clean", "--degrade", "fog"], USAGE, "degradation 'fog': expected one of haze"),
        (["pairs", "--degrade", "haze"], FAILED, "needs clean pictures"),
        (["clean", "clean"], USAGE, "two data sets are called clean; give them names: NAME=FOLDER"),
        (["clean", "--codecs", "jpg"], USAGE, "codec 'jpg': expected aicr"),
        (["clean", "--codecs", "jpeg", "--qualities", "10"], USAGE, "are for our codec"),
        (["clean", "--qualities", "64"], USAGE, "ours are 0 to 63"),
        (["clean", "--qualities", "avif=low"], USAGE, "expected a number 0 to 63, or CODEC=NUMBER,NUMBER"),
        (["clean", "--model", "big"], SETUP, "cannot set up model 'big': unknown model"),
        (["clean", "--model", "a b=aicr-t"], USAGE, "model label 'a b'"),
        (["clean", "-m", "aicr-t", "-m", "aicr-t"], USAGE, "two models are called aicr-t"),
        (["clean", "--anchors", "none.json"], FAILED, "none.json: No such file"),
        (["pairs", "--anchors", "none.json"], USAGE, "name the one it is for, SET=JSON: pairs"),
        (["clean", "--plot", "plot"], USAGE, "no suffix to choose the image format by"),
        (["clean", "--device", "abacus"], SETUP, "cannot use device 'abacus'"),
        (["clean", "--codecs", "jpeg", "--crop", "1,2"], USAGE, "is not LEFT,TOP,SIDE"),
        (["clean", "--limit", "0"], USAGE, "is outside 1 or more"),
        (["clean", "--codecs", "jpeg", "--sheet", "s.png", "--sheet-pictures", "z"], FAILED, "no picture 'z'"),
    ],
)
def test_bad_arguments_are_named(
    here: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], code: int, message: str
) -> None:
    assert aicr("eval", "--out", "out", *arguments) == code
    captured = capsys.readouterr()
    assert message in captured.err
    assert "Traceback" not in captured.err
    if code in (USAGE, SETUP):
        assert not Path("out").exists()


def test_missing_extra_is_one_line(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for module, codec in (("pytorch_msssim", "aicr"), ("skimage", "nlm+jpeg")):
        with monkeypatch.context() as patch:
            patch.setitem(sys.modules, module, None)
            assert aicr("eval", "clean", "--out", "out", "--codecs", codec) == SETUP
        assert "pip install 'aicr_ext[eval]'" in capsys.readouterr().err


def test_names_of_several_files() -> None:
    data = DataSet("k", "synthetic", "haze:beta=1.5", (), lambda name: None)
    assert str(cli_eval._named(Path("p/x.svg"), data, [data])) == "p/x.svg"
    assert str(cli_eval._named(Path("p/x.svg"), data, [data, data])) == "p/x-k-haze-beta-1.5.svg"


def test_help_does_not_import_torch() -> None:
    code = "import sys; from aicr_ext.cli import main; main(['eval', '--help']); sys.exit('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0
    assert "--degrade" in done.stdout
