"""What the script for a GPU runs, on the CPU: files between devices, many streams, times by events, predictions."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from op_cases import requires_ops

import aicr_ext
from aicr_ext.ops import block_paths
from benchmarks import coder, coder_streams, cross_device, gpu_summary, network_calls, predictions, speed, timing

ROOT = Path(__file__).parents[1]


def rows_of(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(path.read_text().splitlines()))


# Files between devices


@pytest.fixture
def small(monkeypatch):
    monkeypatch.setattr(cross_device, "DRAWN", ((1, 1), (17, 40)))
    monkeypatch.setattr(cross_device, "SAME", 2)
    return ["--device", "cpu", "--models", "aicr-t", "--precision", "float32", "--qualities", "20", "--drawn-only"]


def test_files_cross(small, tmp_path):
    cross_device.main([*small, "--seed", "3", "--csv", str(tmp_path / "t.csv")])
    rows = rows_of(tmp_path / "t.csv")
    assert [row["size"] for row in rows] == ["1x1", "40x17"]
    assert {(row["files"], row["files that differ"], row["latents that differ"]) for row in rows} == {("6", "0", "0")}
    assert {row["seed"] for row in rows} == {"3"}
    assert not torch.equal(cross_device.drawn(3)[1], cross_device.drawn(4)[1])


def test_a_latent_that_differs_is_a_failure(small, monkeypatch):
    """The device's decoder goes wrong in a bit; the pictures still look alike."""
    remember = cross_device.Place._remember
    places = []

    def wrong(self, module, arguments):
        places.extend([self] if self not in places else [])
        latent = arguments[0].clone()
        if places.index(self):
            latent[0, 0, 0, 0] = torch.nextafter(latent[0, 0, 0, 0], torch.tensor(9e9))
        remember(self, module, (latent,))

    monkeypatch.setattr(cross_device.Place, "_remember", wrong)
    with pytest.raises(SystemExit, match="latents differ"):
        cross_device.main(small)


# The coder on many streams


@requires_ops
def test_many_streams(tmp_path, monkeypatch):
    monkeypatch.setattr(coder, "WORKLOADS", {"B": coder.WORKLOADS["B, skewed"]})
    path = tmp_path / "t.csv"
    coder.main(["--device", "cpu", "--symbols", "3000", "--rounds", "1", "--streams", "1", "7", "--csv", str(path)])
    rows = rows_of(path)
    assert [(row["streams"], row["symbols"]) for row in rows] == [("1", "3000"), ("7", "21000")]
    assert rows[0]["bits/symbol"] == rows[1]["bits/symbol"]
    assert all(float(row[f"{way} Gsym/s"]) > 0 for row in rows for way in ("encode", "decode"))


@requires_ops
@pytest.mark.parametrize("what, message", [("encode", "differ from the CPU's"), ("decode", "decoded other symbols")])
def test_a_wrong_coder_is_not_timed(what, message, monkeypatch):
    symbols, index = coder.WORKLOADS["B, skewed"](500)
    alone = coder_streams.Batch.repeated(symbols, index, 1, "cpu").encode()[0].numpy().tobytes()
    right = getattr(coder_streams.Batch, what)

    def wrong(self, *arguments):
        first, second = right(self, *arguments)
        first[-1] += 1
        return first, second

    monkeypatch.setattr(coder_streams.Batch, what, wrong)
    with pytest.raises(RuntimeError, match=message):
        coder_streams.check(coder_streams.Batch.repeated(symbols, index, 2, "cpu"), alone, "B")


# The codec


def test_the_table_of_a_device(tmp_path, monkeypatch, capsys):
    """A path that fails is named, and the others are in the table."""

    class Codec(aicr_ext.Codec):
        def __init__(self, *arguments, cuda_graphs=False, **options):
            if cuda_graphs:
                raise RuntimeError("no graphs on a CPU")
            super().__init__(*arguments, **options)

    monkeypatch.setattr(aicr_ext, "Codec", Codec)
    monkeypatch.setattr(speed, "device_paths", lambda device: ["aicr_ext, graphs", "aicr_ext"])
    path = tmp_path / "t.csv"
    options = ["--device", "cpu", "--models", "aicr-t", "--precision", "float32", "--batch", "2", "--seconds", "0"]
    with pytest.raises(SystemExit, match="1 of 2 rows failed"):
        speed.main([*options, "--size", "32", "16", "--csv", str(path)])
    (row,) = rows_of(path)
    assert (row["path"], row["size"], row["batch"]) == ("aicr_ext", "32x16", "2")
    assert float(row["decode pictures/s"]) == pytest.approx(2 / float(row["decode s"]))
    assert "batch 2, aicr_ext, graphs: RuntimeError: no graphs on a CPU" in capsys.readouterr().out


def test_graphs_are_measured_where_the_codec_has_them(monkeypatch):
    monkeypatch.setattr(aicr_ext, "Codec", lambda model, device=None, *, cuda_graphs=False: None)
    assert speed.device_paths("cuda") == ["aicr_ext, graphs", "aicr_ext, graphs, 16 streams", "aicr_ext", "eager"]
    assert speed.device_paths("cpu") == ["aicr_ext", "eager"]
    monkeypatch.setattr(aicr_ext, "Codec", lambda model, device=None: None)
    assert speed.device_paths("cuda") == ["aicr_ext", "eager"]


# Times by events


def test_times_between_events_are_those_of_the_call_on_a_cold_cache(monkeypatch):
    done = []

    class Event:
        def __init__(self, enable_timing):
            assert enable_timing

        def record(self):
            done.append("event")
            self.at = len([what for what in done if what != "event"])

        def synchronize(self):
            done.append("wait")

        def elapsed_time(self, end):
            return 2.0 * (end.at - self.at)  # of what was done in between, 2 ms each

    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: None)
    monkeypatch.setattr(timing, "_flush_memory", lambda: SimpleNamespace(zero_=lambda: done.append("flush")))
    calls = [lambda: done.append("one"), lambda: done.extend(["two", "two"])]
    assert timing.measure_events(calls, 0) == [pytest.approx(2e-3), pytest.approx(4e-3)]
    assert done[:3] == ["one", "two", "two"]  # to warm up
    assert done[3:8] == ["flush", "event", "one", "event", "wait"]


# Predictions


@pytest.fixture(scope="module")
def calls():
    return network_calls.network_calls("aicr-t", 128, 64, "bfloat16")


def test_the_calls_are_those_of_the_network(calls):
    """As many kernels as there are blocks, with the bytes and operations of their maps."""
    ours = [call for call in calls["synthesis"] if call.name.startswith("aicr_ext::")]
    names = [call.name.removeprefix("aicr_ext::") for call in ours]
    assert {name: names.count(name) for name in names} == {
        "layer_norm_conv1x1": 15,
        "depthwise_gram": 5,
        "fold_channel_attention": 5,
        "decoupled_attention": 5,
        "gated_depthwise_conv3x3": 5,
    }
    gate = next(call for call in ours if call.name.endswith("gated_depthwise_conv3x3"))
    assert gate.shapes[0] == (1, 768, 4, 8)
    assert gate.dtype == "bfloat16"
    assert gate.bytes == 2 * (768 + 384) * 32 + 4 * 768 * 9  # weights stay float32
    assert gate.flops == 2 * 9 * 768 * 32
    maps = [call.arguments[0] for call in ours if not call.name.endswith("fold_channel_attention")]
    assert all(x.is_contiguous(memory_format=torch.channels_last) for x in maps)
    attention = next(call for call in ours if call.name.endswith("decoupled_attention"))
    assert attention.bytes == 2 * 3 * 192 * 32 + 4 * 2 * 192 * 5  # two maps of one shape are two maps
    convolutions = [call for call in calls["analysis"] if call.name == "aten::convolution"]
    assert {call.dtype for call in convolutions} == {"bfloat16"}
    assert {call.dtype for call in calls["entropy networks"]} == {"int16"}
    assert block_paths.has_channel_kernels(torch.zeros(1)) is False  # as before
    steps = {way: [call.name for call in calls[f"{way} steps"]] for way in ("encode", "decode")}
    quantise, accept, index = (f"aicr_ext::latent_{name}" for name in ("quantise", "accept", "scale_index"))
    dequantise = "aicr_ext::latent_dequantise"
    ours = {way: [name for name in names if name.startswith("aicr_ext::")] for way, names in steps.items()}
    both = [quantise, accept, quantise, accept, dequantise]
    assert ours["encode"] == [*both, *both[:-2]]  # of y, of its detail
    assert ours["decode"] == 2 * [index, accept, index, accept, dequantise]
    assert calls["encode steps"][0].bytes == 32 * 192 * (4 + 4 + 2 * 2) + (192 + 2 * 128) * 4 + 32 * 96 * 3


@requires_ops
def test_arguments_of_a_call_can_be_drawn(calls):
    for call in calls["synthesis"]:
        if call.name.startswith("aicr_ext::"):
            arguments = call.drawn("cpu")
            given = [(a, b) for a, b in zip(arguments, call.arguments, strict=True) if isinstance(a, torch.Tensor)]
            assert all(a.stride() == b.stride() and a.dtype == b.dtype for a, b in given)
            out = getattr(torch.ops.aicr_ext, call.name.partition("::")[2])(*arguments)
            out = out if isinstance(out, tuple | list) else (out,)
            assert all(torch.isfinite(t).all() for t in out)


def test_sides_are_checked():
    with pytest.raises(ValueError, match="multiples of 64, got 100 x 64"):
        network_calls.network_calls("aicr-t", 100, 64, "float32")


def call_of(name: str, dtype: str, shapes: list[tuple[int, ...]], size: int, flops: int) -> network_calls.NetworkCall:
    arguments = tuple(torch.empty(shape, device="meta") for shape in shapes)
    return network_calls.NetworkCall(name, dtype, arguments, size, flops)


def test_floors_and_expectations():
    moving = call_of("aicr_ext::layer_norm2d", "bfloat16", [(1, 8, 4, 4)], 48_000_000, 0)
    assert predictions.floor(moving) == pytest.approx(10e-6)
    assert predictions.expected(moving, 4e-6) == pytest.approx(10e-6 / 0.6 + 4e-6)
    product = call_of("aten::convolution", "bfloat16", [(1, 64, 8, 8), (64, 64, 1, 1)], 0, 989_000_000)
    assert predictions.floor(product) == pytest.approx(1e-6)
    depthwise = call_of("aten::convolution", "bfloat16", [(1, 64, 8, 8), (64, 1, 3, 3)], 0, 67_000_000)
    assert predictions.floor(depthwise) == pytest.approx(1e-6)
    assert predictions.floor(call_of("aten::bmm", "float32", [(1, 2, 2)], 0, 67_000_000)) == pytest.approx(1e-6)
    assert predictions.floor(call_of("aten::add", "int16", [(1, 2)], 0, 67_000_000)) == pytest.approx(2e-6)
    integers = call_of("aten::convolution", "int16", [(1, 64, 8, 8), (64, 64, 3, 3)], 0, 1_979_000_000)
    assert predictions.floor(integers) == pytest.approx(4e-6)
    integers = call_of("aten::convolution", "int16", [(1, 64, 8, 8), (64, 1, 3, 3)], 0, 67_000_000)
    assert predictions.floor(integers) == pytest.approx(2e-6)
    projected = call_of("aicr_ext::layer_norm_conv1x1", "bfloat16", [(1, 8, 4, 4), (8,), (6, 8, 1, 1)], 0, 989_000_000)
    assert predictions.floor(projected) == pytest.approx(1e-6)
    assert predictions.shape_of(projected) == "1x8x4x4 to 6"
    taps = 18 * 8 * 4 * 4
    gram = call_of("aicr_ext::depthwise_gram", "bfloat16", [(1, 8, 4, 4)], 0, taps + 989_000_000)
    assert predictions.floor(gram) == pytest.approx(1e-6)
    assert predictions.expected(gram, 4e-6) == pytest.approx(1e-6 / 0.4 + 8e-6)  # two kernels


def test_graphs_hold_analysis_and_synthesis_only():
    parts = predictions.calls_of("aicr-t", "bfloat16")
    rest = [call for name in ("entropy networks", "decode steps") for call in parts[name]]
    recorded = sum(predictions.expected(call, predictions.NODE) for call in parts["synthesis"])
    graphs = predictions.graphs_seconds("aicr-t", "bfloat16", 1)
    assert graphs["decode"] == pytest.approx(recorded + len(rest) * predictions.QUEUE)  # Python is slower than these
    calls = predictions.coding("aicr-t", "bfloat16", 1)
    assert all(graphs[way] < predictions.eager_seconds(calls[way]) for way in calls)


def test_streams_run_side_by_side_until_the_device_is_full():
    one, many = predictions.coder_rate(1, "decode"), predictions.coder_rate(1 << 20, "decode")
    assert predictions.coder_rate(100, "decode") == pytest.approx(100 * one)
    assert many == predictions.coder_rate(1 << 14, "decode") < predictions.RESIDENT["decode"] * 132 * one
    assert predictions.coder_rate(1, "decode", predictions.NARROW) < one


def test_the_page_has_the_tables_that_the_script_prints(capsys):
    predictions.main([])
    printed = capsys.readouterr().out
    page = (ROOT / "docs" / "performance.md").read_text(encoding="utf-8")
    tables = [part for part in printed.split("\n\n") if part.startswith("|")]
    assert len(tables) == 5
    for table in tables:
        assert table.strip() in page, "docs/performance.md: paste what python -m benchmarks.predictions prints"


def test_measurements_are_filled_in(tmp_path):
    (tmp_path / "kernels.csv").write_text("kernel,map,precision,us\nlayer_norm2d,1x64x128x192,bfloat16,9.5\n")
    (tmp_path / "coder-streams.csv").write_text(
        'workload,device,streams,encode Gsym/s,decode Gsym/s\n"A, uniform",cuda,256,1,2\n"C, photograph",cuda,256,3,4\n'
        '"C, photograph",cpu,256,5,6\n'
    )
    (tmp_path / "speed-cuda.csv").write_text(
        "model,size,path,precision,batch,encode s,decode s\n"
        'aicr-t,768x512,aicr_ext,bfloat16,1,0.004,0.003\naicr-t,768x512,"aicr_ext, graphs",bfloat16,1,0.002,0.001\n'
        'aicr-t,768x512,"aicr_ext, graphs, 16 streams",bfloat16,1,0.0005,0.0007\n'
    )
    kernels = [row for row in predictions.kernel_rows(tmp_path) if row["bf16 measured us"] is not None]
    assert [(row["kernel"], row["map"], row["bf16 measured us"]) for row in kernels] == [
        ("layer_norm2d", "1x64x128x192", 9.5)
    ]
    streams = {row["streams"]: row for row in predictions.coder_rows(tmp_path)}
    assert (streams[256]["encode measured Gsym/s"], streams[256]["decode measured Gsym/s"]) == (3, 4)
    assert streams[1]["encode measured Gsym/s"] is None
    first, second, *others = predictions.codec_rows(tmp_path)
    assert (first["way"], first["measured ms"], first["graphs, measured ms"]) == ("encode", 4, 2)
    assert (second["way"], second["measured ms"], second["graphs, measured ms"]) == ("decode", 3, 1)
    assert all(row["measured ms"] is None for row in others)
    parts = {(row["model"], row["streams"]): row["both measured ms"] for row in predictions.parts_rows(tmp_path)}
    assert parts["aicr-t", 1] == 3
    assert parts["aicr-t", 16] == pytest.approx(1.2)
    assert parts["aicr-t", 4] is None
    assert parts["aicr-s", 16] is None


@requires_ops
def test_kernels_are_measured_at_their_shapes(tmp_path):
    path = tmp_path / "kernels.csv"
    options = ["--device", "cpu", "--seconds", "0", "--kernels", "fold_channel_attention", "--csv", str(path)]
    predictions.main(options)
    rows = rows_of(path)
    assert {row["map"] for row in rows} == {f"1x4x{d}x{d}" for d in (8, 16, 32, 48, 64)}
    for row in rows:
        assert float(row["x expected"]) == pytest.approx(float(row["us"]) / float(row["expected us"]))


# The page about a run


def test_the_page_names_what_failed_and_what_cannot_be_read(tmp_path):
    steps = {"gpu_tests": {"status": "failed", "seconds": 4}, "speed": {"status": "failed", "seconds": 1}}
    (tmp_path / "summary.json").write_text(json.dumps({"gpu": "G", "commit": "c", "steps": steps}))
    (tmp_path / "gpu_tests.log").write_text("noise\n=== 2 failed, 3 passed in 1.0s ===\nlater\n")
    (tmp_path / "speed.log").write_text("a | b\nRuntimeError: x | y\n")
    (tmp_path / "kernels.csv").write_text("another\n1\n")
    (tmp_path / "cross-device.csv").write_text("files,latents that differ\n3,1\n4,0\n")
    gpu_summary.main([str(tmp_path)])
    page = (tmp_path / "summary.md").read_text()
    assert "| gpu_tests | failed | 4 | 2 failed, 3 passed in 1.0s |" in page
    assert "| speed | failed | 1 | RuntimeError: x / y |" in page
    assert "kernels.csv cannot be read: KeyError 'kernel'" in page
    assert "files: 7, latents that differ: 1" in page
    assert "GPU G, commit c" in page


def test_a_folder_that_is_none_is_refused():
    with pytest.raises(SystemExit, match="usage: gpu_summary"):
        gpu_summary.main(["/nonexistent"])
