"""Pictures in strips of patches: the bits of the whole."""

from __future__ import annotations

import pytest
import torch
from training import TONED

from aicr_ext.codec.checkpoint import untrained
from aicr_ext.model import rows
from aicr_ext.model.evidence import noise_evidence
from aicr_ext.model.rows import over_rows
from aicr_ext.model.transforms import FromPicture, ToneField


@pytest.fixture
def strips(monkeypatch):
    """Of two rows of patches in pictures that are 48 wide; gives the heights that the functions saw."""
    monkeypatch.setattr(rows, "_PIXELS", 2 * 2 * 16 * 48)
    return []


@pytest.mark.parametrize(
    "size", [(2, 3, 80, 48), (2, 3, 64, 48), (1, 3, 16, 48), (2, 3, 32, 48), (0, 3, 48, 48)], ids=str
)
@pytest.mark.parametrize("scale", [1, 4, 16])
def test_strips_are_the_whole(size, scale, strips):
    x = torch.rand(size)
    field = torch.rand(size[0], 2, size[2] // 4, 5)

    def function(x, field):
        strips.append(x.shape[2])
        return x[:, :2, ::scale, :5] + field.repeat_interleave(4, 2)[:, :, ::scale]

    whole = function(x, field)
    strips.clear()
    with torch.no_grad():
        found = over_rows(function, x, field)
    assert torch.equal(found, whole)
    assert sum(strips) == size[2]
    assert max(strips) <= (64 if size[0] == 1 else 32 if size[0] == 2 else 48)


def test_with_gradients_it_is_one(strips):
    x = torch.rand(2, 3, 80, 48, requires_grad=True)
    over_rows(lambda x: strips.append(x.shape[2]) or x * 2, x).sum().backward()
    assert strips == [80]
    assert torch.equal(x.grad, torch.full_like(x, 2))


@torch.no_grad()
def test_evidence_and_tone_in_strips(strips, monkeypatch):
    torch.manual_seed(0)
    x, tone = torch.rand(2, 3, 112, 48), ToneField()
    in_strips = tone(x), *noise_evidence(x)
    monkeypatch.setattr(rows, "_PIXELS", 1 << 30)
    for found, whole in zip(in_strips, (tone(x), *noise_evidence(x)), strict=True):
        assert torch.equal(found, whole)


@torch.no_grad()
def test_a_stem_that_nobody_watches_has_the_same_bits():
    analysis = untrained(TONED).eval().analysis
    assert isinstance(analysis.stem[0], FromPicture)
    x = torch.rand(1, 3, 48, 64)
    before = x.clone()
    assert torch.equal(analysis._centred_stem(x, True), analysis._centred_stem(x, False))
    assert torch.equal(x, before)
