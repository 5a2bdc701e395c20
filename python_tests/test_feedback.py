"""What the synthesis gets wrong, back into the latents."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from training import TINY, TONED

import aicr_ext
from aicr_ext.codec import container
from aicr_ext.codec.checkpoint import untrained
from aicr_ext.codec.codec import Codec
from aicr_ext.model.aicr import AICR
from aicr_ext.model.evidence import LOCAL, WHOLE
from aicr_ext.model.feedback import LEAST_QUALITY, Feedback
from aicr_ext.model.precision import InBfloat16


@pytest.fixture
def model():
    return untrained(TONED).eval()


def with_share(model: AICR, logit: float) -> AICR:
    """The model, with one share of everything: 2 sigmoid(logit)."""
    with torch.no_grad():
        for feedback in (model.analysis.feedback, model.analysis.detail.feedback):
            feedback.head.weight.zero_()
            feedback.head.bias.fill_(logit)
            feedback.slope.zero_()
    return model


def latents(model: AICR, picture: torch.Tensor, quality: int = 40) -> torch.Tensor:
    with torch.no_grad():
        found = model.analysis(picture, torch.tensor([quality]), synthesis=model.synthesis)
    return found[:, : model.config.components]


def test_no_share_is_the_analysis_alone(model):
    picture, quality = torch.rand(1, 3, 48, 64), torch.tensor([40])
    with_share(model, -100.0)
    with torch.no_grad():
        alone = model.analysis(picture, quality)
        assert torch.equal(model.analysis(picture, quality, synthesis=model.synthesis), alone)
        with_share(model, 0.0)
        assert not torch.equal(model.analysis(picture, quality, synthesis=model.synthesis), alone)
        assert torch.equal(model.analysis(picture, quality), alone)


def test_all_of_it_is_a_step_that_a_linear_synthesis_needs_no_second_of(model):
    """Where only orthonormal linear paths decode, nothing is wrong any more that they could show."""
    torch.manual_seed(0)
    basis = torch.linalg.qr(torch.randn(768, model.config.components))[0]
    n = model.config.latent
    with torch.no_grad():
        model.synthesis.tail[0].weight.zero_()
        model.synthesis.tail[0].bias.zero_()
        model.synthesis.linear.weight.copy_(basis[:, :n, None, None])
        model.synthesis.detail.linear.weight.copy_(basis[:, n:, None, None])
        for part in (model, model.analysis.detail, model.synthesis.detail):
            scales = [part.analysis.scale, part.synthesis.scale] if part is model else [part.scale]
            for scale in scales:
                scale.log_ends.uniform_(-1, 1)
        model.synthesis.scale.log_ends.copy_(-model.analysis.scale.log_ends)
        model.synthesis.detail.scale.log_ends.copy_(-model.analysis.detail.scale.log_ends)
        picture, quality = torch.rand(1, 3, 48, 64), torch.tensor([40])
        toned = model.analysis.tone(picture)

        def wrong(found):
            return model.synthesis.components(toned - model.synthesis(found, quality)).abs().max()

        none, half, full = (wrong(latents(with_share(model, logit), picture)) for logit in (-100.0, -1.0986123, 0.0))
    assert none > 0.1
    torch.testing.assert_close(half, none / 2, rtol=1e-3, atol=0)
    assert full < 1e-4 * none


def test_components_are_products_with_what_each_adds(model):
    picture = torch.rand(1, 3, 32, 48)
    found = model.synthesis.components(picture)
    assert found.shape == (1, model.config.components, 2, 3)
    one = torch.zeros(1, 768, 2, 3)
    one[0, :, 1, 2] = model.synthesis.detail.linear.weight[:, 3, 0, 0].detach()
    adds = torch.nn.functional.pixel_shuffle(one, 16)
    expected = float((picture * adds).sum())
    assert float(found[0, model.config.latent + 3, 1, 2]) == pytest.approx(expected, rel=1e-4)


def test_the_share_depends_on_size_place_picture_and_quality():
    torch.manual_seed(0)
    feedback = Feedback(5)
    with torch.no_grad():
        feedback.slope.fill_(0.3)
    wrong, local, whole = torch.randn(2, 5, 3, 4), torch.randn(2, LOCAL, 3, 4), torch.randn(2, WHOLE, 1, 1)
    quality = torch.tensor([20, 60])

    def share(wrong=wrong, local=local, whole=whole, quality=quality):
        with torch.no_grad():
            return feedback(wrong, (local, whole), quality)

    before = share()
    assert before.shape == wrong.shape
    assert 0 < before.min() < before.max() < 2
    assert (share(wrong=2 * wrong) > before).all()
    assert torch.equal(share(wrong=-wrong), before)
    other = local.clone()
    other[0, :, 1, 2] += 1
    changed = (share(local=other) != before).any(1)
    assert changed[0, 1, 2]
    assert int(changed.sum()) == 1
    assert (share(whole=whole + 1) != before).any(1).all()
    changed = (share(quality=torch.tensor([20, 30])) != before).any(1)
    assert changed[1].all()
    assert not changed[0].any()


def test_low_qualities_have_none(model):
    picture = torch.rand(1, 3, 48, 64)
    with_share(model, 0.0)
    for quality, corrected in ((0, False), (LEAST_QUALITY - 1, False), (LEAST_QUALITY, True)):
        with torch.no_grad():
            alone = model.analysis(picture, torch.tensor([quality]))[:, : model.config.components]
        assert torch.equal(latents(model, picture, quality), alone) != corrected


def test_the_noise_that_is_told_grows_with_the_share(model):
    picture, quality = torch.rand(1, 3, 48, 64), torch.tensor([40])
    with_share(model, 0.0)
    with torch.no_grad():
        before = model.analysis(picture, quality)[:, model.config.components :]
        found = model.analysis(picture, quality, synthesis=model.synthesis)[:, model.config.components :]
    torch.testing.assert_close(found, 2 * before)


def test_it_learns_without_a_derivative_of_the_decoded_picture():
    model = with_share(untrained(TONED).train().requires_grad_(True), -1.0)
    found = model.analysis(torch.rand(1, 3, 64, 64), torch.tensor([40]), synthesis=model.synthesis)
    found[:, : model.config.components].square().sum().backward()
    assert model.analysis.feedback.head.bias.grad.abs().min() > 0
    assert all(p.grad is None for p in model.synthesis.parameters())


def test_the_codec_corrects_what_it_codes(toned, model, monkeypatch):
    monkeypatch.setattr("aicr_ext.codec.codec.has_bfloat16", lambda device: False)
    picture = torch.rand(3, 50, 70)
    coded = []
    for logit in (-100.0, 0.0):
        codec = Codec(with_share(model, logit))
        file = codec.compress(picture, quality=60)
        coded.append([bytes(stream) for stream in container.unpack(file)[1]])
        with torch.no_grad():
            padded = codec._padded(picture[None])
            expected = model.analysis(padded, torch.tensor([60]), synthesis=model.synthesis)
            alone = model.analysis(padded, torch.tensor([60]))
        torch.testing.assert_close(codec.latent(picture, 60), expected)
        torch.testing.assert_close(codec.latent(picture, 60, feedback=False), alone)
        assert codec.decompress(file).shape == picture.shape
    assert coded[0] != coded[1]
    assert [bytes(s) for s in container.unpack(codec.compress(picture, quality=60, feedback=False))[1]] == coded[0]
    low = LEAST_QUALITY - 1
    assert codec.compress(picture, quality=low) == codec.compress(picture, quality=low, feedback=False)


@pytest.mark.parametrize("quick", [False, True])
def test_where_a_codec_looks_at_a_synthesis_in_bfloat16(model, quick, monkeypatch):
    """In float32 on a CPU with instructions for it; what the codec decodes with is in float32 all the same."""
    monkeypatch.setattr("aicr_ext.codec.codec.has_bfloat16", lambda device: quick)
    picture = torch.rand(3, 48, 64)
    codec = Codec(with_share(model, 0.0))
    assert isinstance(codec._seen, InBfloat16) is quick
    assert {p.dtype for p in codec.networks["synthesis"].parameters()} == {torch.float32}
    with torch.no_grad():
        exact = model.analysis(picture[None], torch.tensor([40]), synthesis=model.synthesis)
        seen = codec.latent(picture, 40)
    assert torch.equal(seen, exact) is not quick
    torch.testing.assert_close(seen, exact, rtol=0, atol=0.02 * float(exact.std()))
    low = Codec(model, precision="bfloat16")
    assert low._seen is low.networks["synthesis"]
    assert not isinstance(Codec(untrained(TINY).eval())._seen, InBfloat16)


def test_bad_feedback():
    with pytest.raises(TypeError, match="feedback must be True or False, got str"):
        aicr_ext.compress(torch.rand(3, 16, 16), feedback="no")


def test_what_a_hook_keeps_of_the_picture_stays(model):
    kept = []
    model.synthesis.register_forward_hook(lambda module, inputs, out: kept.append((out, out.clone())))
    latents(with_share(model, 0.0), torch.rand(1, 3, 48, 64))
    assert len(kept) == 1
    assert torch.equal(*kept[0])


def test_what_it_needs():
    for without in ({"noise_evidence": False}, {"linear_shortcut": False, "detail": 0}):
        with pytest.raises(ValueError, match="feedback: tiny-toned needs a linear shortcut and noise_evidence"):
            AICR(replace(TONED, **without))
    assert AICR(TINY).analysis.feedback is None
