"""Profiles: what is counted, what is kept, and what ``aicr profile`` prints and writes."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from shell import aicr

from aicr_ext import ops
from aicr_ext.cli import FAILED, OK, USAGE
from aicr_ext.codec.tables import gaussian_tables
from aicr_ext.ops import rans
from aicr_ext.profiling import Roofs, measure_roofs, profile
from aicr_ext.profiling.capture import Call, Capture, load_calls
from aicr_ext.profiling.cases import CASES, make_call
from aicr_ext.profiling.compare import compare, fastest_in_turns
from aicr_ext.profiling.costs import bytes_moved, signature
from aicr_ext.profiling.report import as_lines, draw_roofline, operator_table
from aicr_ext.profiling.resources import KernelResources, read_build_log
from benchmarks import op_cases

BLOCKS = ("gated_convolutions", "spatial_attention", "transposed_attention")

ROOFS = Roofs("cpu", {1 << 20: 1e9, 1 << 24: 1e8}, {"float32": 1e10})

LOG = """\
  ptxas info    : 0 bytes gmem
  ptxas info    : Compiling entry function '_ZN4aicr12_GLOBAL__N_16kernelILi3EEEvPf' for 'sm_90'
  ptxas info    : Function properties for _ZN4aicr12_GLOBAL__N_16kernelILi3EEEvPf
      8 bytes stack frame, {spilled} bytes spill stores, 8 bytes spill loads
  ptxas info    : Used 40 registers, used 1 barriers, 3584 bytes smem, 400 bytes cmem[0]
  ptxas info    : Compiling entry function '_ZN4aicr12_GLOBAL__N_16kernelILi3EEEvPf' for 'sm_120'
  ptxas info    : Used 168 registers, used 0 barriers, 392 bytes cmem[0]
"""


def test_rows_count_calls_bytes_and_operations():
    x, weight = torch.rand(2, 8, 5, 7), torch.rand(16, 8, 1, 1)

    def call() -> torch.Tensor:
        y = F.conv2d(x, weight)
        return y + y

    rows = {row.name: row for row in profile(call, rounds=2, roofs=ROOFS)}
    convolution, addition = rows["aten::convolution"], rows["aten::add"]
    assert (convolution.calls, convolution.arguments, convolution.dtype) == (1, "2x8x*x*, 16x8x1x1", "float32")
    assert convolution.flops == 2 * (2 * 5 * 7) * 8 * 16
    assert convolution.bytes == 4 * (x.numel() + weight.numel() + 2 * 16 * 35)
    assert addition.flops == 0
    assert addition.bytes == 4 * (2 * 16 * 35) * 2  # the same tensor is read once
    assert addition.roof_seconds == pytest.approx(addition.bytes / 1e9)
    assert all(row.seconds > 0 for row in rows.values())


def test_calls_with_arguments_of_one_kind_make_one_row():
    """Strips of a map differ in height; they are one row, another number of channels is another."""
    weight = torch.ones(4)
    maps = [torch.rand(1, 4, h, 6) for h in (3, 9, 4)] + [torch.rand(1, 5, 4, 6)]
    rows = profile(lambda: [ops.layer_norm2d(x, weight if x.shape[1] == 4 else torch.ones(5)) for x in maps])
    ours = {row.arguments: row for row in rows if row.name == "aicr_ext::layer_norm2d"}
    assert {text: row.calls for text, row in ours.items()} == {"1x4x*x*, 4": 3, "1x5x*x*, 5": 1}
    assert ours["1x4x*x*, 4"].bytes == 4 * (2 * 4 * 16 * 6 + 3 * 4)


def test_views_take_no_part():
    x = torch.rand(4, 6)
    assert {row.name for row in profile(lambda: x.t().reshape(3, 8).t()[1:])} == {"aten::clone"}


def test_bytes_and_signatures():
    x = torch.rand(2, 3)
    assert bytes_moved([x, [x, None], 1.5], x) == 2 * 24  # read and written
    assert signature([torch.rand(1, 2, 3, 4), torch.rand(2, 1, 3, 3), torch.rand(()), x]) == "1x2x*x*, 2x1x3x3, 1"


def test_roofs():
    assert ROOFS.bandwidth(1 << 10) == 1e9
    assert ROOFS.bandwidth(1 << 23) == 1e8
    assert ROOFS.seconds(1 << 20, 0, "int16") == pytest.approx((1 << 20) / 1e9)
    assert ROOFS.seconds(1 << 20, 10**9, "float32") == pytest.approx(0.1)
    assert ROOFS.seconds(1 << 20, 10**9, "int16") == 0.0  # nothing to compare with
    measured = measure_roofs(dtypes=("float32",))
    assert measured.product.keys() == {"float32"}
    assert all(rate > 0 for rate in (*measured.copy.values(), *measured.product.values()))


@pytest.mark.parametrize("name", sorted(CASES))
@pytest.mark.parametrize("channels_last", [False, True])
def test_every_case_runs_beside_its_definition(name, channels_last):
    call = make_call(name, (2, 8, 5, 6), channels_last=channels_last)
    out, defined = call.operator(*call.arguments), call.definition(*call.arguments)
    torch.testing.assert_close(out, defined, rtol=1e-4, atol=1e-4)
    row = compare(call, ROOFS)
    if name != "fold_channel_attention":  # which gets no map
        assert call.arguments[0].is_contiguous(memory_format=torch.channels_last) is channels_last
        assert row["kernel"] == f"{name} 2x8x5x6 float32"
    assert row["us"] > 0
    assert row["x eager"] > 0
    assert row["x compile"] is None


def test_cases_name_what_they_know():
    with pytest.raises(ValueError, match="unknown operator 'sort'; known: channel_gram, decoupled_attention, "):
        make_call("sort", (1, 2, 3, 4))
    with pytest.raises(ValueError, match=r"shape must be four numbers from 1, \(B, C, H, W\), got \(1, 2\)"):
        make_call("gelu_gate", (1, 2))


def test_what_is_kept_can_be_run_again(tmp_path):
    capture, weight = Capture(), torch.rand(8)
    maps = [torch.rand(1, 8, 4, h).to(memory_format=torch.channels_last) for h in (3, 6, 2)]
    profile(lambda: [ops.layer_norm2d(x, weight) for x in maps], capture=capture)
    capture.save(tmp_path / "calls")
    (call,) = load_calls(tmp_path / "calls")
    assert str(call) == "layer_norm2d 1x8x4x6 float32"  # the largest
    assert call.arguments[0].stride() == maps[1].stride()
    assert torch.equal(call.operator(*call.arguments), ops.layer_norm2d(maps[1], weight))


@pytest.mark.parametrize("content", [b"", b"poem", None])
def test_other_files_hold_no_calls(tmp_path, content):
    path = tmp_path / "calls"
    path.write_bytes(content) if content is not None else torch.save({"format": "another"}, path)
    with pytest.raises(ValueError, match=f"^{path}: no file of captured calls: "):
        list(load_calls(path))


def test_calls_that_change_their_arguments_begin_alike_every_time():
    symbols, index = torch.arange(-20, 20).short(), torch.full((40,), 60).byte()
    tables, splits = gaussian_tables().tensor, torch.tensor([0, 40])
    data, ends = rans.rans_encode([symbols], [index], [tables], [splits])
    state = rans.rans_decode_begin(data, ends)
    call = Call("rans_decode_step", [state.clone(), data, index, tables, splits])
    assert compare(call, ROOFS)["us"] > 0
    assert torch.equal(call.arguments[0], state)
    assert torch.equal(call.operator(*call.fresh()), symbols)


def test_the_fastest_of_so_many_runs_is_taken():
    runs, made = [], []
    fastest_in_turns([runs.append, runs.append], "cpu", seconds=0.0, rounds=3, prepare=lambda: made.append(0) or [1])
    assert (len(runs), len(made)) == (2 + 2 * 3, 8)


def test_benchmark_and_profile_know_the_same_operators():
    ours = {name.removesuffix("_case") for name in vars(op_cases) if name.endswith("_case")} | set(BLOCKS)
    assert ours - {"depthwise_conv3x3", "pointwise_convolution"} == set(CASES)  # which are torch's


def test_tables_have_the_rest_in_one_line():
    x = torch.rand(1, 8, 16, 16)
    rows = profile(lambda: F.gelu(F.relu(x) + 1), roofs=ROOFS)
    table = operator_table(rows, whole=1.0, top=1)
    assert [line["kernel"] for line in table][1:] == ["2 other kinds of calls", "outside of operators"]
    assert sum(line["% of time"] for line in table) == pytest.approx(100)
    lines = as_lines(table).splitlines()
    assert len({len(line) for line in lines}) == 1
    assert len(lines) == 2 + len(table)


def test_roofline_without_operations(tmp_path):
    rows = profile(lambda: torch.rand(3) + 1)
    with pytest.raises(ValueError, match="no operator with known operations"):
        draw_roofline(rows, ROOFS, tmp_path / "roof.png", "nothing")
    assert not list(tmp_path.iterdir())


def test_resources_of_kernels(tmp_path):
    log = tmp_path / "build.log"
    log.write_text(LOG.format(spilled=0))
    assert read_build_log(log) == [
        KernelResources("kernel<3>", "sm_90", 40, 0, 3584),
        KernelResources("kernel<3>", "sm_120", 168, 0, 0),
    ]
    ninety, twenty = read_build_log(log)
    assert (ninety.warps, ninety.blocks, ninety.occupancy) == (51, 50, 51 / 64)
    assert (twenty.warps, twenty.blocks, twenty.occupancy) == (12, None, 12 / 48)
    assert KernelResources("kernel", "sm_75", 40, 0, 0).occupancy is None
    log.write_text("nothing of that kind")
    with pytest.raises(ValueError, match="no report of ptxas"):
        read_build_log(log)


def test_command_dry_run(tmp_path, capsys):
    log = tmp_path / "build.log"
    log.write_text(LOG.format(spilled=0))
    assert aicr("profile", "--dry-run", str(log), "--csv", str(tmp_path / "table.csv")) == OK
    out = capsys.readouterr().out
    assert "| kernel<3> | sm_90 " in out
    assert out.splitlines()[-1] == "1 kernels, 2 reports, 0 with spilled registers"
    rows = list(csv.DictReader((tmp_path / "table.csv").open()))
    assert [row["registers"] for row in rows] == ["40", "168"]
    log.write_text(LOG.format(spilled=12))
    assert aicr("profile", "--dry-run", str(log)) == FAILED
    assert "1 with spilled registers" in capsys.readouterr().out


def test_command_codec(tmp_path, capsys):
    pytest.importorskip("matplotlib")
    files = {name: tmp_path / name for name in ("table.csv", "trace.json", "roofs.svg", "calls")}
    options = [part for name, path in zip(("csv", "trace", "roofline", "capture"), files.values(), strict=True)
               for part in (f"--{name}", str(path))]  # fmt: skip
    assert aicr("profile", "--size", "80x48", "--rounds", "1", "--top", "5", *options) == OK
    out = capsys.readouterr().out
    assert out.startswith("roofs, 1 thread: copies ")
    assert "compress, 80 x 48, quality 32: " in out
    assert "decompress, 80 x 48, quality 32: " in out
    rows = list(csv.DictReader(files["table.csv"].open()))
    assert {row["phase"] for row in rows} == {"compress", "decompress"}
    assert {event.get("name") for event in json.loads(files["trace.json"].read_text())["traceEvents"]} >= {"compress"}
    assert files["roofs.svg"].read_text().lstrip().startswith("<?xml")
    names = {call.name for call in load_calls(files["calls"])}
    assert names >= {"decoupled_attention", "gated_depthwise_conv3x3", "integer_linear"}

    assert aicr("profile", str(files["calls"]), "--only", "decoupled_attention") == OK
    assert "| decoupled_attention 1x" in capsys.readouterr().out
    assert aicr("profile", str(files["calls"]), "--only", "integer_linear", "--repeat", "2") == OK
    assert " calls, 2 times each, in " in capsys.readouterr().out
    assert aicr("profile", str(files["calls"]), "--only", "sort") == USAGE
    assert "holds no call of 'sort'" in capsys.readouterr().err


def test_command_operator(tmp_path, capsys):
    arguments = ["gelu_gate", "--shape", "1x8x16x16", "--dtype", "bfloat16", "--nchw"]
    assert aicr("profile", *arguments, "--csv", str(tmp_path / "table.csv")) == OK
    assert "| gelu_gate 1x8x16x16 bfloat16 |" in capsys.readouterr().out
    (row,) = csv.DictReader((tmp_path / "table.csv").open())
    assert float(row["us"]) > 0


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (
            ["sort"],
            "'sort' is neither 'codec' nor a file nor an operator; operators: channel_gram, decoupled_attention, ",
        ),
        (["--size", "80"], "'80' is not WIDTHxHEIGHT"),
        (["--repeat", "3"], "--repeat is for an operator or a file of calls, not for 'codec'"),
        (["gelu_gate", "--trace", "t.json"], "--trace is for the codec, not for 'gelu_gate'"),
        (["gelu_gate", "--only", "gelu_gate"], "--only takes from a file of calls, and 'gelu_gate' is none"),
        (["gelu_gate", "--rounds", "5"], "--rounds is for the codec, not for 'gelu_gate'"),
        (["--shape", "1x8x8x8"], "--shape is for an operator or a file of calls, not for 'codec'"),
        (["gelu_gate", "--nvtx"], "--nvtx is for the codec, and for operators with --repeat"),
        (["gelu_gate", "--repeat", "2", "--csv", "t.csv"], "--csv writes a table, and --repeat makes none"),
        (["--trace", "t.json.gz"], "t.json.gz: a trace needs the suffix .json"),
        (["--csv", "missing/table.csv"], "missing/table.csv: there is no such folder"),
        (["--roofline", "roof.xyz"], "roof.xyz: the suffix must be one of "),
        (["gelu_gate", "--shape", "1x8x0x4"], "'1x8x0x4' is not BxCxHxW"),
    ],
)
def test_command_names_what_is_wrong(argv, message, capsys):
    assert aicr("profile", *argv) == USAGE
    assert message in capsys.readouterr().err


def test_log_of_a_build_without_cuda(tmp_path: Path, capsys):
    assert aicr("profile", "--dry-run", str(tmp_path / "missing.log")) == FAILED
    assert "missing.log" in capsys.readouterr().err
