"""The benchmark of dead zones, on a small network."""

from __future__ import annotations

import torch
from pictures import smooth
from training import TONED

from aicr_ext.codec.checkpoint import export_weights, untrained
from benchmarks import dead_zone


def test_a_row_for_each_input_and_quality(tmp_path, capsys):
    for name in "ab":
        smooth(256, 256).save(tmp_path / f"{name}.png")
    weights = tmp_path / "tiny.safetensors"
    export_weights(weights, untrained(TONED), {})
    dead_zone.main([str(tmp_path), "--model", str(weights), "--held-out", "1"])
    rows = [line.split("|")[1:-1] for line in capsys.readouterr().out.splitlines() if line.startswith("|")]
    assert len(rows) == 2 + len(dead_zone.SIGMAS) * len(dead_zone.QUALITIES)
    assert [cell.strip() for cell in rows[0]][:2] == ["noise", "quality"]


def test_an_infinite_price_is_plain_rounding():
    model = untrained(TONED)
    picture = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    plain = dead_zone.log_losses(model, picture, picture, 63, float("inf"))
    wide = dead_zone.log_losses(model, picture, picture, 63, 1e-3)  # everything near a step is 0
    assert plain.shape == (2,)
    assert not torch.equal(plain, wide)
