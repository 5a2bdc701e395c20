"""The encoder's search for the latents that are worth their bits most."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor

from aicr_ext.model.aicr import AICR, checkerboard
from aicr_ext.model.config import QUALITIES
from aicr_ext.model.entropy import LEAST_CODED, LOG_SCALE_MAX, LOG_SCALE_MIN, filtered, gaussian_bits, quantised
from aicr_ext.model.evidence import noise_evidence
from aicr_ext.model.scale import lambda_of
from aicr_ext.model.transforms import Synthesis

__all__ = ["Decoder", "check_searchable", "restored", "search"]


class Decoder(Protocol):
    """A synthesis as a search looks at it; weights that need no gradient cost less."""

    def __call__(self, latents: Tensor, quality: Tensor) -> Tensor:
        """Latents (B, N + E, h, w) and quality (B,) to pictures (B, 3, 16 h, 16 w), differentiably."""

    def components(self, x: Tensor) -> Tensor:
        """As :meth:`Synthesis.components`."""


# Of the first and the last step, chosen on photographs that training kept out: by how much of the way each mean moves,
# and the temperature in bits. A share of the last movement goes on. In between both are geometric. Where that finds
# nothing, as it may where little of the picture is kept, slower means do.
_RATES, _TEMPERATURES, _MOMENTUM = ((0.2, 0.1), (0.05, 0.05)), (0.3, 0.2), 0.5
# How much of the curvature of the distortion counts that a component would have by itself.
_CURVATURE = 0.8

# Derivatives are taken in tiles of latents, of up to so many rows and columns, which see so many more on each side.
_TILE, _MARGIN = 64, 3
# Rows of latents at a time where no others matter. Both for memory.
_ROWS = 32

# Of what a picture lacks that was decoded at the best quality, feedback takes little where it is noise. Below the first
# share all of it counts as noise, above the second none.
_NOISE, _PICTURE = 0.4, 0.6


def check_searchable(model: AICR) -> None:
    """Raises ValueError if a model is not one that :func:`search` can search latents of."""
    config = model.config
    if config.linear_shortcut and not config.quant_step:
        return
    lacks = "has quantiser steps of its priors" if config.linear_shortcut else "has no linear shortcut"
    raise ValueError(f"effort: expected 0, for {config.name} {lacks}")


@torch.no_grad()
def restored(model: AICR, x: Tensor, decoder: Decoder) -> Tensor:
    """The clean picture of a picture (B, 3, H, W) in [0, 1], as well as the model knows it: what a search aims at.

    It is what decoding shows at the best quality before anything is rounded, and where that lacks picture rather
    than noise, the picture itself. Which of both, the feedback's shares of the difference tell, for the whole picture
    at once. For a model that does not restore it is the picture.
    """
    analysis = model.analysis
    if analysis.feedback is None and not model.config.wiener_filter:
        return x
    best = torch.full((len(x),), QUALITIES - 1, device=x.device)
    latents = analysis(x, best, synthesis=decoder)
    expected = _Expected(model, latents)
    decoded = decoder(expected.means(latents, rounding=None), best).float()
    if analysis.feedback is None:
        return decoded
    seen = x if analysis.tone is None else analysis.tone(x)
    difference = seen - decoded
    wrong = decoder.components(difference)
    power = wrong.square()
    share = _total(analysis.shares(wrong, noise_evidence(seen), best) * power) / _total(power)
    weight = ((share - _NOISE) / (_PICTURE - _NOISE)).nan_to_num(0).clamp(0, 1)
    return torch.addcmul(decoded, difference, weight[:, None, None, None])


@torch.no_grad()
def search(
    model: AICR, latents: Tensor, target: Tensor, quality: Tensor, steps: int, decoder: Decoder
) -> tuple[Tensor, Tensor]:
    """Latents whose bits and distortion together are less than those of the analysis.

    Rounding by itself knows of each symbol what an error of it would cost if all others had none, and its own bits.
    Here every symbol is random, one of three whole numbers, and independent of the others. A step takes the derivatives
    of distortion and bits at the mean of all. With them the expected loss is known for each of the three, because the
    linear shortcut is nearly orthogonal and the distortion nearly quadratic: the curvature of a component is the energy
    that it adds to the picture, and there is hardly any between components. Each symbol takes the three as often as
    Boltzmann's distribution of their losses says, and its mean moves there, part of the way (mean-field annealing). The
    hyper analysis sees the means of the first step, and z stays. In the end symbols are the whole numbers next to their
    means. Not part of the published codec.

    Args:
        latents: what the analysis gives (B, N + E or more, h, w).
        target: pictures (B, 3, H, W) to be shown, as :func:`restored` makes them. What is beyond them is padding.
        quality: (B,).
        steps: each takes a decoding and its derivative.
        decoder: how the synthesis shows latents.

    Returns:
        latents (B, N + E or more, h, w), which are whole numbers beyond what the priors expect, with no noise in them;
        and z (B, Z, ceil(h/4), ceil(w/4)), whole numbers, which they have to be coded with. For a picture for which it
        found nothing better the search is made again, slower; if that finds nothing, either, it keeps the latents that
        rounding gives.
    """
    before = _Expected(model, latents)
    price = lambda_of(quality, model.config.lambdas)[:, None, None, None]
    curvature = _CURVATURE * price * _energies(model.synthesis, quality)

    def loss(expected: _Expected, at: Tensor) -> Tensor:
        mean, log_scale = expected(expected.channels(at))
        distortion = _squared_error(decoder(at, quality), target)
        bits = _total(gaussian_bits(at - mean, log_scale)) + _total(model.hyper_prior.bits(expected.z))
        return bits + price.flatten() * distortion

    def anneal(rates: tuple[float, float]) -> tuple[_Expected, Tensor]:
        expected, means, movement = before, rounded, torch.zeros_like(rounded)
        for step in range(steps):
            if step == 1:
                expected = _Expected(model, _without_noise(model, means))
            part = step / max(1, steps - 1)
            rate, temperature = (first ** (1 - part) * last**part for first, last in (rates, _TEMPERATURES))
            slope = price * _slope_of_distortion(decoder, means, quality, target)
            mean, log_scale, slope_of_bits = expected.slopes(means)
            expected.channels(slope).add_(slope_of_bits)
            movement *= _MOMENTUM
            parts = zip(*(t.split(_ROWS, 2) for t in (movement, means - mean, log_scale, slope)), strict=True)
            for moving, *of_rows in parts:
                moving += _towards(*of_rows, curvature, temperature)
            means = means + rate * movement
        return expected, expected.means(_without_noise(model, means), _nearest)

    rounded = before.means(latents, quantised)
    least, best, z = loss(before, rounded), rounded, before.z
    done = torch.zeros_like(least, dtype=torch.bool)
    for rates in _RATES if steps else ():
        expected, found = anneal(rates)
        better = (loss(expected, found) < least) & ~done
        best, z = (torch.where(better[:, None, None, None], *pair) for pair in ((found, best), (expected.z, z)))
        done |= better
        if done.all():
            break
    return _without_noise(model, best), z


class _Expected:
    """What the priors expect of latents, with the z of these (B, N + E or more, h, w)."""

    def __init__(self, model: AICR, latents: Tensor) -> None:
        self._model = model
        y, detail = model.y_and_detail(latents)
        self.z = torch.round(model.hyper_analysis(y))
        self._parameters = model.first_parameters(self.z, *y.shape[2:])
        self._first = checkerboard(*y.shape[1:], y.device)
        self._detail = detail.shape[1]

    def __call__(self, y: Tensor, rows: slice = slice(None), cols: slice = slice(None)) -> tuple[Tensor, Tensor]:
        """Means and log scales (B, N + E, h, w), where the first step of y decodes to these values (B, N, h, w).

        Of these rows and columns, if ``y`` has no others; next to where it is cut they are other ones.
        """
        first, parameters = (t[:, :, rows, cols] for t in (self._first, self._parameters))
        _, log_scale, mean = self._model.config.split(parameters)
        second = self._model.second_parameters(y * first, parameters).chunk(2, 1)
        log_scale, mean = (torch.where(first, a, b) for a, b in zip((log_scale, mean), second, strict=True))
        if not self._detail:
            return mean, log_scale
        of_detail = self._model.detail_parameters(log_scale)
        return torch.cat([mean, torch.zeros_like(of_detail)], 1), torch.cat([log_scale, of_detail], 1)

    def means(self, latents: Tensor, rounding: Callable[[Tensor, Tensor], Tensor] | None) -> Tensor:
        """Latents (B, N + E, h, w) of what the analysis gives, filtered, and with what is beyond the means rounded;
        ``rounding`` takes it and log scales. None: without rounding, but for what second steps expect.
        """
        y, detail = self._model.y_and_detail(latents)
        noise, more = self._model.noise(latents)
        _, log_scale, mean = self._model.config.split(self._parameters)
        first = (rounding or quantised)(filtered(y - mean, log_scale, noise), log_scale) + mean
        mean, log_scale = self(first)
        noise = None if noise is None else torch.cat([noise, more], 1)
        residual = filtered(torch.cat([y, detail], 1) - mean, log_scale, noise)
        return mean + (residual if rounding is None else rounding(residual, log_scale))

    def slopes(self, latents: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """As :meth:`__call__`, and how the bits of all others change with the first step of y, (B, N, h, w)."""
        found = [torch.empty_like(t) for t in (latents, latents, self.channels(latents))]
        for tile, seen in _tiles(latents):
            of_tile = latents[:, :, *seen]
            with torch.enable_grad():
                y = self.channels(of_tile).detach().requires_grad_()
                mean, log_scale = self(y, *seen)
                (slope,) = torch.autograd.grad(gaussian_bits(of_tile - mean, log_scale).sum(), y)
            for whole, part in zip(found, (mean, log_scale, slope), strict=True):
                whole[:, :, *tile] = part.detach()[:, :, *_within(tile, seen)]
        return tuple(found)

    def channels(self, latents: Tensor) -> Tensor:
        """y of latents."""
        return latents[:, : self._model.config.latent]


def _slope_of_distortion(decoder: Decoder, latents: Tensor, quality: Tensor, target: Tensor) -> Tensor:
    """The derivative of the squared error, summed over channels and pixels, by the latents."""
    slope = torch.empty_like(latents)
    for tile, seen in _tiles(latents):
        shown = target[:, :, *(slice(16 * s.start, 16 * s.stop) for s in seen)]
        with torch.enable_grad():
            of_tile = latents[:, :, *seen].detach().requires_grad_()
            (found,) = torch.autograd.grad(_squared_error(decoder(of_tile, quality), shown).sum(), of_tile)
        slope[:, :, *tile] = found[:, :, *_within(tile, seen)]
    return slope


#: Rows and columns.
_Place = tuple[slice, slice]


def _tiles(latents: Tensor) -> list[tuple[_Place, _Place]]:
    """Places of tiles, and of what has to be seen for the derivative in each of them."""
    sides = []
    for length in latents.shape[2:]:
        ends = torch.linspace(0, length, -(-length // _TILE) + 1).int().tolist()
        tiles = [slice(*pair) for pair in itertools.pairwise(ends)]
        sides.append([(t, slice(max(0, t.start - _MARGIN), min(length, t.stop + _MARGIN))) for t in tiles])
    return [tuple(zip(*pair, strict=True)) for pair in itertools.product(*sides)]


def _within(tile: _Place, seen: _Place) -> _Place:
    """The place of a tile in what is seen for it."""
    rows, cols = (slice(t.start - s.start, t.stop - s.start) for t, s in zip(tile, seen, strict=True))
    return rows, cols


def _squared_error(shown: Tensor, target: Tensor) -> Tensor:
    height, width = target.shape[2:]
    return _total((shown[:, :, :height, :width].float() - target).square())


def _total(x: Tensor) -> Tensor:
    """Sums (B,) of (B, C, H, W), each of one order whatever the number of threads."""
    return x.sum(3).sum(2).sum(1)


def _energies(synthesis: Synthesis, quality: Tensor) -> Tensor:
    """What a quantiser step of each component adds to the picture, squared and summed: (B, N + E, 1, 1)."""
    energies = [synthesis.linear.weight.float().square().sum(0) * synthesis.scale(quality).square()]
    if (detail := synthesis.detail) is not None:
        energies.append(detail.linear.weight.float().square().sum(0) * detail.scale(quality).square())
    return torch.cat(energies, 1)


def _towards(residual: Tensor, log_scale: Tensor, slope: Tensor, curvature: Tensor, temperature: float) -> Tensor:
    """From where residuals are to where Boltzmann's distribution has their mean, elementwise.

    The loss of a value v is slope (v - residual) + curvature (v - residual)² + the bits of v, which is one of the
    three whole numbers next to the residual.
    """
    near = torch.round(residual)
    sign = torch.where(near < 0, -1.0, 1.0)  # of numbers from 0 on, tails of the Gaussian keep their digits
    size, slope = near.abs(), slope * sign
    inverse = torch.exp(-log_scale.clamp(LOG_SCALE_MIN, LOG_SCALE_MAX)) * math.sqrt(0.5)
    edges = [torch.erfc((size + edge) * inverse) for edge in (-1.5, -0.5, 0.5, 1.5)]
    masses = [0.5 * (a - b) for a, b in itertools.pairwise(edges)]
    masses[0] = torch.where(size == 0, masses[2], masses[0])
    differences = [size + value - residual * sign for value in (-1, 0, 1)]
    losses = [
        slope * d + curvature * d * d - torch.log2(mass.clamp_min(1e-6))
        for d, mass in zip(differences, masses, strict=True)
    ]
    often = torch.softmax(torch.stack(losses) / -temperature, 0)
    mean = sum(p * d for p, d in zip(often, differences, strict=True)) * sign
    return torch.where(log_scale < LEAST_CODED, -residual, mean)


def _nearest(residual: Tensor, log_scale: Tensor) -> Tensor:
    return torch.where(log_scale < LEAST_CODED, 0.0, torch.round(residual))


def _without_noise(model: AICR, latents: Tensor) -> Tensor:
    """As the analysis gives latents (B, N + E, h, w), with their noise if it tells any."""
    return torch.cat([latents, torch.zeros_like(latents)], 1) if model.config.wiener_filter else latents
