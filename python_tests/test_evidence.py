"""What a picture shows of its noise, and the gates that see it."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from training import TONED

from aicr_ext.model.aicr import AICR
from aicr_ext.model.evidence import LOCAL, WHOLE, noise_evidence
from aicr_ext.model.shortcut import ShortcutGate


def log_power(variance: float) -> float:
    return 0.5 * math.log(1e5 * variance + 0.1)


def test_noise_shows_its_strength_at_every_scale():
    generator = torch.Generator().manual_seed(0)
    sigma = torch.tensor([5.0, 15.0, 50.0])[:, None, None] / 255  # of red, green, blue
    local, whole = noise_evidence(0.5 + sigma * torch.randn(1, 3, 512, 512, generator=generator))
    assert local.shape == (1, LOCAL, 32, 32)
    assert whole.shape == (1, WHOLE, 1, 1)
    for scale in range(3):
        for colour in range(3):
            variance = float(sigma[colour] / 2**scale) ** 2  # a mean over 4 pixels halves the deviation
            found = local[0, 3 * scale + colour].exp().square().mean().log() / 2
            assert float(found) == pytest.approx(log_power(variance), abs=0.03)


def test_it_is_the_power_of_diagonal_differences():
    x = torch.rand(2, 3, 32, 48, generator=torch.Generator().manual_seed(1), dtype=torch.float64).float()
    local, _ = noise_evidence(x)
    place = x[1, 2, 16:32, 32:48].double()  # second row, third column of places
    for scale in range(3):
        powers = [
            0.25 * float(place[r, c] - place[r, c + 1] - place[r + 1, c] + place[r + 1, c + 1]) ** 2
            for r in range(0, len(place), 2)
            for c in range(0, len(place), 2)
        ]
        found = float(local[1, 3 * scale + 2, 1, 2])
        assert found == pytest.approx(log_power(sum(powers) / len(powers)), abs=1e-5)
        place = place.unflatten(0, (-1, 2)).unflatten(2, (-1, 2)).mean((1, 3))


def test_texture_does_not_hide_that_the_rest_is_clean():
    generator = torch.Generator().manual_seed(2)
    x = torch.full((1, 3, 320, 320), 0.5)
    x[..., 32:] += 0.1 * torch.randn(1, 3, 320, 288, generator=generator)  # all but two of twenty columns of places
    _, whole = noise_evidence(x)
    least, tenth, third, most = whole.view(4, LOCAL)
    assert torch.equal(least, tenth)
    torch.testing.assert_close(least, torch.full((LOCAL,), log_power(0)))
    assert (third > least + 2).all()
    assert (most >= third).all()


@pytest.mark.parametrize("sides", [(16, 16), (16, 160)])
def test_the_smallest_pictures(sides):
    local, whole = noise_evidence(torch.rand(2, 3, *sides))
    assert local.shape == (2, LOCAL, sides[0] // 16, sides[1] // 16)
    assert torch.isfinite(local).all()
    assert torch.isfinite(whole).all()


def test_a_gate_sees_evidence():
    """What is seen here, and what is seen of the picture; not what is seen of another one."""
    torch.manual_seed(0)
    gate = ShortcutGate(6, 4, evidence=True)
    features, linear = torch.randn(2, 6, 5, 7), torch.randn(2, 4, 5, 7)
    local, whole = torch.randn(2, LOCAL, 5, 7), torch.randn(2, WHOLE, 1, 1)

    def factors(local, whole):
        with torch.no_grad():
            return gate(features, linear, (local, whole))[0]

    before = factors(local, whole)
    other = local.clone()
    other[0, :, 2, 3] += 1
    change = (factors(other, whole) - before).abs().amax(1)
    assert change[0, 2, 3] > 0
    assert int((change > 0).sum()) == 1
    other = whole.clone()
    other[1] += 1
    change = (factors(local, other) - before).abs().amax(1)
    assert change[0].max() == 0
    assert change[1].min() > 0


def test_the_analysis_shows_its_gates_the_picture_behind_the_tone_field():
    torch.manual_seed(0)
    model = AICR(TONED).eval()
    seen = []
    for gate in (model.analysis.gate, model.analysis.detail.gate):
        gate.local.register_forward_hook(lambda _m, inputs, _out: seen.append(inputs[0]))
    picture = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        model.analysis(picture, torch.tensor([20]))
        expected, _ = noise_evidence(model.analysis.tone(picture))
    assert len(seen) == 2
    for local in seen:
        torch.testing.assert_close(local, expected)


def test_evidence_needs_a_gate():
    with pytest.raises(ValueError, match="noise_evidence: tiny-toned has no gate to see it"):
        AICR(replace(TONED, shortcut_gate=False, wiener_filter=False, feedback=False))
