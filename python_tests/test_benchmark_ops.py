"""The table of benchmarks.ops, on little: every operator is in it, and its columns mean what they say."""

from __future__ import annotations

import csv

import pytest
import torch
from op_cases import requires_ops

from benchmarks import ops
from benchmarks.op_cases import BLOCK_CHANNELS, CASES, QUICK_CASES, in_layout


@requires_ops
def test_every_operator_has_its_row(tmp_path, capsys):
    ops.main(["--quick", "--seconds", "0", "--device", "cpu", "--dtype", "float32", "--csv", str(tmp_path / "t.csv")])
    rows = list(csv.DictReader((tmp_path / "t.csv").read_text().splitlines()))
    assert {row["op"] for row in rows} == {case.op for case in CASES}
    assert "matrix product" in capsys.readouterr().out
    roofs = ops.roofs(torch.float32, "cpu")
    for row in rows:
        moved = float(row["GB/s"]) * float(row["us"]) * 1e3
        flops = float(row["GFLOP/s"]) * float(row["us"]) * 1e3
        least = roofs.seconds(round(moved), round(flops), "float32")
        assert float(row["% of roof"]) == pytest.approx(1e8 * least / float(row["us"]))
        assert float(row["product GFLOP/s"]) == roofs.product["float32"] / 1e9
        out = 4 * 24 * 40 * (16 if row["op"] in ("gelu_gate", "gated_depthwise_conv3x3") else 32) / 2**20
        if row["op"] == "channel_gram":
            out = 4 * 16 * (4 + 2) / 2**20
        assert float(row["MiB"]) >= out
        assert float(row["max error"]) <= 2 * float(row["eager error"]) + 1e-5


def test_blocks_have_all_widths():
    for op in ("transposed_attention", "spatial_attention", "gated_convolutions"):
        assert [case.shape[1] for case in CASES if case.op == op] == list(BLOCK_CHANNELS)


@pytest.mark.parametrize("case", QUICK_CASES, ids=lambda case: case.op)
@torch.no_grad()
def test_operator_and_definition_take_the_same_arguments(case):
    args = in_layout(case.arguments(torch.float64, "cpu"), "channels_last")
    torch.testing.assert_close(case.native(*args), case.reference(*args), rtol=1e-6, atol=1e-6)


def test_memory_is_what_a_call_holds_at_most():
    x = torch.zeros(256, 1024)  # 1 MiB
    assert ops.peak_memory(lambda: (x + 1) * 2, "cpu") == pytest.approx(2, abs=0.01)
    assert ops.peak_memory(lambda: (x + 1).sum(), "cpu") == pytest.approx(1, abs=0.01)


def test_an_unknown_operator_is_named(capsys):
    with pytest.raises(SystemExit):
        ops.main(["--ops", "softmax"])
    assert "no operator softmax; there are decoupled_attention, " in capsys.readouterr().err
