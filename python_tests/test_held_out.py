"""The benchmarks of the encoder's parts on photographs kept out, with a small network."""

from __future__ import annotations

import pytest
import torch
from pictures import smooth
from training import TONED

from aicr_ext.codec.checkpoint import export_weights, untrained
from aicr_ext.model.feedback import LEAST_QUALITY
from benchmarks import dead_zone, feedback, held_out, search, wiener_filter


@pytest.mark.parametrize(
    "benchmark, first",
    [(dead_zone, "price 60, %"), (wiener_filter, "told, %"), (feedback, "learned, %"), (search, "effort 1, %")],
)
def test_a_row_for_each_input_and_quality(benchmark, first, toned, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(search, "EFFORTS", (1,))
    for name in "ab":
        smooth(256, 256).save(tmp_path / f"{name}.png")
    weights = tmp_path / "tiny.safetensors"
    export_weights(weights, untrained(TONED), {})
    benchmark.main([str(tmp_path), "--model", str(weights), "--held-out", "1"])
    rows = [line.split("|")[1:-1] for line in capsys.readouterr().out.splitlines() if line.startswith("|")]
    assert len(rows) == 2 + len(held_out.SIGMAS) * len(held_out.QUALITIES)
    assert [cell.strip() for cell in rows[0]][:3] == ["noise", "quality", first]
    if benchmark is wiener_filter:
        assert all(float(cell) == 0 for row in rows[2:7] for cell in row[3:])  # of no noise nothing is filtered
    if benchmark is feedback:
        assert all((float(row[1]) >= LEAST_QUALITY) == any(float(c) != 0 for c in row[3:]) for row in rows[2:])


def test_an_infinite_price_is_plain_rounding():
    model = untrained(TONED)
    picture = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    plain = dead_zone.losses_at(float("inf"), model, picture, picture, 63)
    wide = dead_zone.losses_at(1e-3, model, picture, picture, 63)  # everything near a step is 0
    assert plain.shape == (2,)
    assert not torch.equal(plain, wide)


def test_the_noise_told_is_that_before_the_gate():
    model = untrained(TONED)
    picture, quality = torch.rand(1, 3, 64, 64), torch.tensor([40])
    with torch.no_grad():
        (few, _), (many, _) = (
            other.noise(other.analysis(picture, quality))
            for other in (wiener_filter.told(model, s) for s in (0.1, 0.2))
        )
    torch.testing.assert_close(2 * few, many)
