"""The training loop: time-boxed, resumable, one log line per report.

Loss per picture: bpp + lambda * MSE, the MSE summed over the three channels in [0, 1], times 16 / sqrt(lambda) so
that every quality pulls about equally. The quality of each picture in a batch is drawn uniformly from 0..63.
"""

from __future__ import annotations

import json
import math
import os
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from aicr_ext.codec.checkpoint import export_weights, load_model
from aicr_ext.model.aicr import AICR
from aicr_ext.model.config import QUALITIES
from aicr_ext.model.initialise import initialise, initialise_linear
from aicr_ext.train.data import PatchSampler, load_images, principal_components

__all__ = ["TrainingOptions", "lambda_of", "rate_distortion_loss", "train"]


@dataclass
class TrainingOptions:
    """What a run is made of.

    Attributes:
        data: folder of photographs. ``out``: folder for the log, the weights and the state to resume from.
        model: configuration name. ``minutes``: time box; the cosine of the learning rate ends with it.
        stages: (fraction of the time at which it ends, batch, patch side) in order; sides multiples of 64.
        learning_rate: peak. ``warmup``: steps up to it. ``clip``: gradient-norm limit. ``decay``: of the EMA.
        device, bfloat16: where, and whether convolutions autocast. ``seed``: of everything random.
        report_every: steps between log lines. ``save_every``: minutes between checkpoints.
        max_steps: end after so many steps even if time is left.
        start: shipped model or weight file to begin from instead of drawn weights.
    """

    data: str
    out: str
    model: str = "aicr-t"
    minutes: float = 60.0
    stages: tuple[tuple[float, int, int], ...] = ((0.5, 8, 128), (0.85, 6, 192), (1.0, 4, 256))
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


def lambda_of(quality: Tensor, ends: tuple[float, float]) -> Tensor:
    """The rate-distortion trade-off of quality indexes: geometric between the two end values."""
    low, high = math.log(ends[0]), math.log(ends[1])
    return torch.exp(low + (high - low) * quality.float() / (QUALITIES - 1))


def rate_distortion_loss(bpp: Tensor, picture: Tensor, target: Tensor, lam: Tensor) -> tuple[Tensor, Tensor]:
    """Mean loss of a batch and the MSE per picture (mean over channels and pixels)."""
    mse = (picture - target).square().mean((1, 2, 3))
    return ((bpp + lam * 3 * mse) * 16 / lam.sqrt()).mean(), mse


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

    Steps whose gradient norm is not finite are skipped and counted in the log.
    """
    torch.manual_seed(options.seed)
    out = Path(options.out)
    out.mkdir(parents=True, exist_ok=True)
    images = load_images(options.data, minimum_side=max(side for _, _, side in options.stages))
    if options.start is not None:
        model = load_model(options.start).requires_grad_(True)
    else:
        model = AICR(options.model)
        initialise(model)
    config = model.config
    if options.start is None and config.linear_shortcut and not (out / "state.pt").exists():
        initialise_linear(model, *principal_components(images, config.latent, options.seed))
    model.to(options.device, memory_format=torch.channels_last).train()
    optimiser = torch.optim.AdamW(model.parameters(), options.learning_rate, (0.9, 0.98), weight_decay=1e-4)
    average = _Average(model, options.decay)
    step, skipped, spent = 0, 0, 0.0
    if (out / "state.pt").exists():
        state = torch.load(out / "state.pt", map_location=options.device, weights_only=True)
        model.load_state_dict(state["model"])
        optimiser.load_state_dict(state["optimiser"])
        average.values = state["average"]
        step, skipped, spent = state["step"], state["skipped"], state["seconds"]
    sampler = PatchSampler(images, options.seed + step)
    box = options.minutes * 60
    started = saved = time.monotonic()
    sums: list[float] = []

    def checkpoint() -> Path:
        state = {
            "model": model.state_dict(),
            "optimiser": optimiser.state_dict(),
            "average": average.values,
            "step": step,
            "skipped": skipped,
            "seconds": spent + time.monotonic() - started,
        }
        torch.save(state, out / "state.tmp")
        os.replace(out / "state.tmp", out / "state.pt")
        path = out / f"{config.name}.safetensors"
        averaged = AICR(config)
        averaged.load_state_dict(average.values, strict=False)  # all but the tables, which the export makes
        export_weights(path, averaged, {"steps": str(step)})
        return path

    with (out / "log.jsonl").open("a") as log:
        while step < options.max_steps:
            elapsed = spent + time.monotonic() - started
            progress = elapsed / box
            if progress >= 1:
                break
            _, count, side = next(s for s in options.stages if progress < s[0])
            warm = min(1.0, (step + 1) / options.warmup)
            rate = options.learning_rate * warm * (0.5 + 0.5 * math.cos(math.pi * progress))
            for group in optimiser.param_groups:
                group["lr"] = rate
            target = sampler.batch(count, side).to(options.device)
            quality = torch.randint(0, QUALITIES, (count,), device=options.device)
            with torch.autocast(options.device.split(":")[0], torch.bfloat16, enabled=options.bfloat16):
                result = model(target, quality)
            lam = lambda_of(quality, config.lambdas)
            bpp = result.y_bpp + result.z_bpp
            loss, mse = rate_distortion_loss(bpp, result.picture, target, lam)
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            norm = torch.nn.utils.clip_grad_norm_(model.parameters(), options.clip)
            if torch.isfinite(norm):
                optimiser.step()
                average.update(model, step)
                psnr = -10 * torch.log10(mse.detach()).mean()
                sums.append([float(v.detach()) for v in (loss, bpp.mean(), result.z_bpp.mean(), psnr, norm)])
            else:
                skipped += 1
            step += 1
            if step % options.report_every == 0 and sums:
                names = ("loss", "bpp", "z_bpp", "psnr", "grad_norm")
                means = {k: round(sum(v) / len(sums), 5) for k, v in zip(names, zip(*sums, strict=True), strict=True)}
                seconds = round(spent + time.monotonic() - started, 1)
                entry = {
                    "step": step,
                    "seconds": seconds,
                    "rate": rate,
                    "batch": count,
                    "side": side,
                    **means,
                }
                log.write(json.dumps({**entry, "skipped": skipped}) + "\n")
                log.flush()
                sums.clear()
            if time.monotonic() - saved > options.save_every * 60:
                checkpoint()
                saved = time.monotonic()
    return checkpoint()
