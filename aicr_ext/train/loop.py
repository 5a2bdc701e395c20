"""The training loop: time-boxed, resumable, one log line per report.

Loss per picture: bpp + lambda * MSE, the MSE summed over the three channels in [0, 1], times 16 / sqrt(lambda) so
that every quality pulls about equally. The quality of each picture in a batch is drawn uniformly from 0..63.
"""

from __future__ import annotations

import json
import math
import os
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TextIO

import torch
from torch import Tensor

from aicr_ext.codec.checkpoint import export_weights, load_model
from aicr_ext.model.aicr import AICR, Output
from aicr_ext.model.config import QUALITIES
from aicr_ext.model.initialise import initialise, initialise_linear
from aicr_ext.train.data import Batch, Batches, load_images, principal_components
from aicr_ext.train.interrupt import noted_interrupt
from aicr_ext.train.mixture import Mixture
from aicr_ext.train.optimisers import build_optimiser

__all__ = ["TrainingOptions", "lambda_of", "rate_distortion_loss", "train"]


@dataclass
class TrainingOptions:
    """What a run is made of.

    Attributes:
        data: folder of photographs. ``out``: folder for the log, the weights and the state to resume from.
        model: configuration name. ``minutes``: time box. ``max_steps``: ends the run even if time is left.
            The schedule follows whichever of the two is nearer to its end.
        stages: (fraction of the run at which it ends, batch, patch side) in order; sides multiples of 64.
        optimiser: ``"adamw"`` or ``"muon"``. ``learning_rate``: peak; one cosine takes it to zero at the end.
            ``warmup``: steps up to it. ``clip``: gradient-norm limit. ``decay``: of the EMA.
        device, bfloat16: where, and whether convolutions autocast. ``seed``: of everything random.
        report_every: steps between log lines. ``save_every``: minutes between checkpoints.
        start: shipped model or weight file to begin from instead of drawn weights.
        mixture: how much of the input is degraded, and by what; the target is always the clean patch.
        knee: loss of a picture beyond which it counts by its logarithm, see :func:`rate_distortion_loss`.
        validation: photographs kept out of training; at every checkpoint the averaged weights are tried on them.
    """

    data: str
    out: str
    model: str = "aicr-t"
    minutes: float = 60.0
    stages: tuple[tuple[float, int, int], ...] = ((0.5, 8, 128), (0.85, 6, 192), (1.0, 4, 256))
    optimiser: str = "adamw"
    learning_rate: float = 8e-4
    warmup: int = 200
    clip: float = 2.0
    decay: float = 0.999
    device: str = "cpu"
    bfloat16: bool = True
    seed: int = 0
    report_every: int = 50
    save_every: float = 5.0
    max_steps: int = 10**9
    start: str | None = None
    mixture: Mixture = field(default_factory=Mixture)
    validation: int = 16
    knee: float = math.inf


def lambda_of(quality: Tensor, ends: tuple[float, float]) -> Tensor:
    """The rate-distortion trade-off of quality indexes: geometric between the two end values."""
    low, high = math.log(ends[0]), math.log(ends[1])
    return torch.exp(low + (high - low) * quality.float() / (QUALITIES - 1))


def rate_distortion_loss(
    bpp: Tensor, picture: Tensor, target: Tensor, lam: Tensor, knee: float = math.inf
) -> tuple[Tensor, Tensor]:
    """Mean loss of a batch and the MSE per picture (mean over channels and pixels).

    A picture's loss L counts as knee * ln(1 + L / knee). Otherwise the few pictures that can hardly be restored,
    many times as far from their target as a clean one, would decide the direction of every step; their own balance of
    rate and distortion stays as it is.
    """
    mse = (picture - target).square().mean((1, 2, 3))
    loss = (bpp + lam * 3 * mse) * 16 / lam.sqrt()
    if not math.isinf(knee):
        loss = knee * torch.log1p(loss / knee)
    return loss.mean(), mse


class _Average:
    """Exponential moving average of the parameters; short at first so that early checkpoints mean something."""

    def __init__(self, model: AICR, decay: float) -> None:
        self.decay = decay
        self.values = {k: v.detach().clone() for k, v in model.named_parameters()}

    @torch.no_grad()
    def update(self, model: AICR, step: int) -> None:
        weight = 1 - min(self.decay, (1 + step) / (10 + step))
        torch._foreach_lerp_(list(self.values.values()), list(model.parameters()), weight)


def train(options: TrainingOptions) -> Path:
    """Runs until the time box or ``max_steps`` ends; resumes when ``out`` holds a state. Returns the weights' path.

    Steps whose gradient norm is not finite are skipped and counted in the log. Ctrl-C (SIGINT) ends the run after the
    step it meets, with state and weights written.
    """
    run = _Run(options)
    saved = time.monotonic()
    with (run.out / "log.jsonl").open("a") as log, noted_interrupt() as interrupted:
        while run.step < options.max_steps and run.progress() < 1 and not interrupted:
            run.advance()
            if run.step % options.report_every == 0 and run.sums:
                run.write(log, run.report())
            if time.monotonic() - saved > options.save_every * 60:
                run.checkpoint()
                run.write(log, run.validate())
                saved = time.monotonic()
        weights = run.checkpoint()
        run.write(log, run.validate())
    return weights


def split(images: list[Tensor], count: int) -> tuple[list[Tensor], list[Tensor]]:
    """``images`` without ``count`` of them, evenly spread, and those; at least half stay."""
    count = min(count, len(images) // 2)
    chosen = {int((i + 0.5) * len(images) / count) for i in range(count)}
    kept = [image for i, image in enumerate(images) if i not in chosen]
    return kept, [images[i] for i in sorted(chosen)]


def center_crop(image: Tensor, side: int) -> Tensor:
    """The middle square of (3, H, W)."""
    top, left = ((s - side) // 2 for s in image.shape[1:])
    return image[:, top : top + side, left : left + side]


def validation_batches(images: list[Tensor], options: TrainingOptions) -> dict[str, Batch]:
    """Fixed batches by the name of their loss in the log: middles of the photographs, clean and as the run's mixture
    makes them. The qualities are spread evenly."""
    if not images:
        return {}
    side = min(192, *(s // 64 * 64 for image in images for s in image.shape[1:]))
    target = (
        torch.stack([center_crop(image, side) for image in images])
        .float()
        .div_(255)
        .contiguous(memory_format=torch.channels_last)
    )
    quality = torch.linspace(0, QUALITIES - 1, len(images)).round().long()
    batches = {"valid_clean": Batch(target, target, quality)}
    if options.mixture.clean < 1:
        generator = torch.Generator().manual_seed(0)
        only = replace(options.mixture, clean=0.0)
        batches["valid_degraded"] = Batch(torch.stack([only(p, generator) for p in target]), target, quality)
    return batches


class _Run:
    """Everything that changes while a model trains."""

    def __init__(self, options: TrainingOptions) -> None:
        torch.manual_seed(options.seed)
        self.options = options
        self.out = Path(options.out)
        self.out.mkdir(parents=True, exist_ok=True)
        images = load_images(options.data, minimum_side=max(side for _, _, side in options.stages))
        images, held_out = split(images, options.validation)
        self.model = self._initial_model(images)
        self.model.to(options.device, memory_format=torch.channels_last).train()
        self.optimiser = build_optimiser(options.optimiser, self.model, options.learning_rate)
        self.average = _Average(self.model, options.decay)
        self.step, self.skipped, self.seconds_before = 0, 0, 0.0
        if self._state.exists():
            self._resume()
        self.batches = Batches(images, options.seed, options.mixture)
        self.validation = validation_batches(held_out, options)
        self.sums: list[tuple[Tensor, ...]] = []
        self.started = time.monotonic()

    @property
    def _state(self) -> Path:
        return self.out / "state.pt"

    def _initial_model(self, images: list[Tensor]) -> AICR:
        if self.options.start is not None:
            return load_model(self.options.start).requires_grad_(True)
        model = AICR(self.options.model)
        initialise(model)
        if model.config.linear_shortcut and not self._state.exists():
            initialise_linear(model, *principal_components(images, model.config.latent, self.options.seed))
        return model

    def _resume(self) -> None:
        state = torch.load(self._state, map_location=self.options.device, weights_only=True)
        self.model.load_state_dict(state["model"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.average.values = state["average"]
        self.step, self.skipped, self.seconds_before = state["step"], state["skipped"], state["seconds"]

    def seconds(self) -> float:
        """Time spent, that before resuming included."""
        return self.seconds_before + time.monotonic() - self.started

    def progress(self) -> float:
        """Spent part of the run, in time or in steps, 0 to 1 and beyond."""
        return max(self.seconds() / (60 * self.options.minutes), self.step / self.options.max_steps)

    def _shape(self) -> tuple[int, int]:
        """Batch size and patch side at this time."""
        progress = min(self.progress(), self.options.stages[-1][0])
        return next((count, side) for end, count, side in self.options.stages if progress <= end)

    def _set_learning_rate(self) -> float:
        warm = min(1.0, (self.step + 1) / self.options.warmup)
        rate = self.options.learning_rate * warm * (0.5 + 0.5 * math.cos(math.pi * min(1.0, self.progress())))
        for group in self.optimiser.param_groups:
            group["lr"] = rate
        return rate

    def _forward(self, model: AICR, batch: Batch) -> tuple[Output, Tensor, Tensor]:
        """The model's output, the loss, and the MSE of each picture."""
        device = torch.device(self.options.device)
        source, target, quality = (t.to(device) for t in batch)
        with torch.autocast(device.type, torch.bfloat16, enabled=self.options.bfloat16):
            result = model(source, quality)
        lam = lambda_of(quality, model.config.lambdas)
        return result, *rate_distortion_loss(
            result.y_bpp + result.z_bpp, result.picture, target, lam, self.options.knee
        )

    @torch.no_grad()
    def validate(self) -> dict[str, float]:
        """Loss of the averaged weights on the photographs kept out, as they are and as the mixture makes them."""
        model = self._averaged().to(self.options.device, memory_format=torch.channels_last).eval()
        values = {}
        for name, batch in self.validation.items():
            _, loss, mse = self._forward(model, batch)
            values[name] = round(float(loss), 5)
            values[f"{name}_psnr"] = round(float(-10 * torch.log10(mse).mean()), 3)
        return values

    def _averaged(self) -> AICR:
        averaged = AICR(self.model.config)
        averaged.load_state_dict(self.average.values, strict=False)  # all but the tables, which the export makes
        return averaged

    def advance(self) -> None:
        """One optimiser step on one batch."""
        self._set_learning_rate()
        result, loss, mse = self._forward(self.model, self.batches.make(self.step, *self._shape()))
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.options.clip)
        if torch.isfinite(norm):
            self.optimiser.step()
            self.average.update(self.model, self.step)
            psnr = -10 * torch.log10(mse).mean()
            bpp = (result.y_bpp + result.z_bpp).mean()
            self.sums.append(tuple(v.detach() for v in (loss, bpp, result.z_bpp.mean(), psnr, norm)))
        else:
            self.skipped += 1
        self.step += 1

    def report(self) -> dict[str, float]:
        """Means since the last report, for the log."""
        means = [float(torch.stack(values).mean()) for values in zip(*self.sums, strict=True)]
        self.sums.clear()
        count, side = self._shape()
        names = ("loss", "bpp", "z_bpp", "psnr", "grad_norm")
        return {
            "rate": self._set_learning_rate(),
            "batch": count,
            "side": side,
            **{name: round(mean, 5) for name, mean in zip(names, means, strict=True)},
            "skipped": self.skipped,
        }

    def write(self, log: TextIO, values: dict[str, float]) -> None:
        """One line of the log."""
        log.write(json.dumps({"step": self.step, "seconds": round(self.seconds(), 1), **values}) + "\n")
        log.flush()

    def checkpoint(self) -> Path:
        """Writes the state to resume from and the averaged weights, each whole or not at all."""
        state = {
            "model": self.model.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "average": self.average.values,
            "step": self.step,
            "skipped": self.skipped,
            "seconds": self.seconds(),
        }
        temporary = self._state.with_suffix(".tmp")
        torch.save(state, temporary)
        os.replace(temporary, self._state)
        path = self.out / f"{self.model.config.name}.safetensors"
        export_weights(path, self._averaged(), {"steps": str(self.step)})
        return path
