"""The benchmark of the encoder's Wiener filter, on a small network."""

from __future__ import annotations

import torch
from pictures import smooth
from training import TONED

from aicr_ext.codec.checkpoint import export_weights, untrained
from benchmarks import wiener_filter


def test_a_row_for_each_input_and_quality(tmp_path, capsys):
    for name in "ab":
        smooth(256, 256).save(tmp_path / f"{name}.png")
    weights = tmp_path / "tiny.safetensors"
    export_weights(weights, untrained(TONED), {})
    wiener_filter.main([str(tmp_path), "--model", str(weights), "--held-out", "1"])
    rows = [line.split("|")[1:-1] for line in capsys.readouterr().out.splitlines() if line.startswith("|")]
    assert len(rows) == 2 + len(wiener_filter.SIGMAS) * len(wiener_filter.QUALITIES)
    assert [cell.strip() for cell in rows[0]][:3] == ["noise", "quality", "told, %"]
    assert all(float(cell) == 0 for row in rows[2:7] for cell in row[3:])  # of no noise nothing is filtered


def test_the_noise_told_is_that_before_the_gate():
    model = untrained(TONED)
    picture, quality = torch.rand(1, 3, 64, 64), torch.tensor([40])
    with torch.no_grad():
        (few, _), (many, _) = (
            other.noise(other.analysis(picture, quality))
            for other in (wiener_filter.told(model, s) for s in (0.1, 0.2))
        )
    torch.testing.assert_close(2 * few, many)
