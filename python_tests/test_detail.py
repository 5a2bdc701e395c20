"""Detail: components beyond those of the latent."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from golden_models import decoded_latent
from pictures import smooth
from training import TONED, UNGATED

from aicr_ext.codec.checkpoint import untrained
from aicr_ext.codec.codec import Codec
from aicr_ext.model.aicr import AICR
from aicr_ext.model.config import CONFIGS
from aicr_ext.model.entropy import LOG_SCALE_MIN, quantised
from aicr_ext.model.initialise import initialise_detail, initialise_linear
from aicr_ext.train.data import patch_statistics, principal_components

PLAIN = replace(TONED, name="plain", wire_id=93, tone_field=False, **UNGATED)


@pytest.fixture(scope="module")
def photograph() -> torch.Tensor:
    """(3, 96, 128) uint8, smooth with some noise: all components have something to say."""
    generator = torch.Generator().manual_seed(0)
    noise = 12 * torch.randn(3, 96, 128, generator=generator)
    picture = torch.from_numpy(np.array(smooth(128, 96))).permute(2, 0, 1)
    return (picture.float() + noise).round().clamp(0, 255).to(torch.uint8)


@pytest.fixture(scope="module")
def model(photograph) -> AICR:
    model = untrained(PLAIN)
    statistics = patch_statistics([photograph], 0)
    initialise_linear(model, *principal_components(*statistics, PLAIN.latent))
    initialise_detail(model, *statistics)
    return model


def test_detail_is_what_the_shortcut_cannot_give(model, photograph):
    basis = model.analysis.detail.linear.weight[:, :, 0, 0]
    torch.testing.assert_close(basis @ basis.t(), torch.eye(PLAIN.detail), atol=1e-5, rtol=0)
    torch.testing.assert_close(model.synthesis.detail.linear.weight[:, :, 0, 0], basis.t())
    crossed = basis @ model.synthesis.linear.weight[:, :, 0, 0]
    assert crossed.abs().max() < 1e-5
    # behind principal components come the next ones
    expected, _, _ = principal_components(*patch_statistics([photograph], 0), PLAIN.components)
    torch.testing.assert_close((basis @ expected[PLAIN.latent :].t()).abs(), torch.eye(PLAIN.detail), atol=1e-3, rtol=0)


@torch.no_grad()
def test_pictures_come_closer_by_what_is_in_it(model, photograph):
    picture, quality = photograph[None].float() / 255, torch.tensor([63])
    latents = model.analysis(picture, quality)
    y, detail = model.y_and_detail(latents)
    errors = [(model.synthesis(t, quality) - picture).square().sum() for t in (latents, F.pad(y, (0, 0, 0, 0, 0, 6)))]
    energy = (detail / model.analysis.detail.scale(quality)).square().sum()
    assert errors[1] - errors[0] > 0.5 * energy > 0


@torch.no_grad()
def test_files_hold_it(model, photograph, monkeypatch):
    monkeypatch.setitem(CONFIGS, PLAIN.name, PLAIN)
    codec = Codec(model)
    for streams in (None, 3):
        latents = decoded_latent(codec, codec.compress(photograph, quality=63, streams=streams))
        y, detail = model.y_and_detail(latents)
        assert torch.equal(detail, detail.round())
        assert detail.count_nonzero() > 50
        _, before = model.y_and_detail(codec.latent(photograph, 63))
        coded = detail != 0
        assert (detail - before)[coded].abs().max() <= 0.5
        assert y.shape[1] == PLAIN.latent


def test_where_scales_are_smallest_nothing_is_coded():
    residual, least = torch.tensor([40.0, 40.0, 0.4]), torch.tensor(LOG_SCALE_MIN)
    assert quantised(residual, torch.stack([least, least + 0.1, least])).tolist() == [0.0, 40.0, 0.0]


def test_without_shortcut_there_is_none():
    with pytest.raises(ValueError, match="detail: plain has no linear shortcut for it to stand beside"):
        AICR(replace(PLAIN, linear_shortcut=False))


@pytest.mark.parametrize("count", [5, PLAIN.latent])
def test_numbers_of_components_that_cannot_be(count):
    with pytest.raises(ValueError, match=f"detail: expected an even number other than latent, got {count}"):
        AICR(replace(PLAIN, detail=count))
