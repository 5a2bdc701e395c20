"""The training loop: ended by time or steps, resumable, one log line per report."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from aicr_ext.codec.checkpoint import export_weights, load_model
from aicr_ext.errors import first_line
from aicr_ext.files import atomic_write
from aicr_ext.model.aicr import AICR, Output
from aicr_ext.model.config import get_config
from aicr_ext.model.initialise import initialise, initialise_detail, initialise_linear
from aicr_ext.model.precision import autocast, resolve_precision
from aicr_ext.model.scale import lambda_of
from aicr_ext.train.data import Batch, Batches, draw_qualities, load_images, patch_statistics, principal_components
from aicr_ext.train.feed import Feed, Request
from aicr_ext.train.journal import Journal
from aicr_ext.train.losses import guidance_term, rate_distortion_loss
from aicr_ext.train.machine import Signals, prepare_gpu
from aicr_ext.train.optimisers import build_optimiser
from aicr_ext.train.options import TrainingOptions
from aicr_ext.train.parallel import Group
from aicr_ext.train.plot import draw
from aicr_ext.train.restoration import Restoration
from aicr_ext.train.start import as_model, freeze
from aicr_ext.train.state import changed_options, load_state, save_state
from aicr_ext.train.validation import clean_batch, split, trials

__all__ = ["TrainingOptions", "train"]


def train(options: TrainingOptions, say: Callable[[str], None] | None = None, bar: bool = False) -> Path:
    """Trains until the time box or ``max_steps`` ends; resumes when ``out`` holds a state.

    Leaves ``config.toml``, ``log.jsonl``, ``curve.png``, ``state.pt`` and the weights, whose path it returns. Steps
    whose gradient is not finite, or whose loss is above the cap, are skipped and counted in the log.

    Args:
        options: what to do.
        say: called with the few lines a user wants to read.
        bar: show a progress bar on standard error.

    Raises:
        KeyboardInterrupt: Ctrl-C or SIGTERM came; the step was finished and a checkpoint written.
        ValueError: no pictures, or a state in ``out`` that does not fit.
    """
    with contextlib.ExitStack() as stack:
        group, signals = stack.enter_context(Group(options.device)), stack.enter_context(Signals())
        first = group.rank == 0
        run = _Run(options, group, say if say is not None and first else lambda _: None)
        stack.callback(run.feed.close)
        journal = stack.enter_context(Journal(run.out / "log.jsonl" if first else None, bar and first))
        saved = time.monotonic()
        run.begin(journal)
        while True:
            run.clock, interrupted = group.furthest(run.seconds() / (60 * options.minutes), signals.came)
            if run.progress() >= 1 or interrupted:
                break
            run.advance()
            journal.progress(run.progress())
            if run.step % options.report_every == 0:
                journal.write(run.step, run.seconds(), run.report())
            if first and time.monotonic() - saved > 60 * options.save_every:
                run.checkpoint(journal)
                saved = time.monotonic()
        if first:
            run.checkpoint(journal)
            run.draw()
            run.say(f"weights in {run.weights}")
        if interrupted:
            raise KeyboardInterrupt
    return run.weights


class _Average:
    """Exponential moving average of the parameters; short at first so that early checkpoints mean something."""

    def __init__(self, model: AICR, decay: float) -> None:
        self.decay = decay
        self.values = {k: v.detach().clone() for k, v in model.named_parameters()}

    @torch.no_grad()
    def update(self, model: AICR, step: int) -> None:
        weight = 1 - min(self.decay, (1 + step) / (10 + step))
        torch._foreach_lerp_(list(self.values.values()), list(model.parameters()), weight)

    @torch.no_grad()
    def load(self, values: dict[str, Tensor]) -> None:
        for name, value in self.values.items():
            value.copy_(values[name])


class _Run:
    """Everything that changes while a model trains."""

    def __init__(self, options: TrainingOptions, group: Group, say: Callable[[str], None]) -> None:
        torch.manual_seed(options.seed)
        self.options, self.group, self.say, self.device = options, group, say, group.device
        if self.device.type == "cuda":
            prepare_gpu()
        self.precision = resolve_precision(options.precision, self.device)
        self.out = Path(options.out)
        self.out.mkdir(parents=True, exist_ok=True)
        smallest = min(batch for _, batch, _ in options.stages)
        if smallest < group.size:
            raise ValueError(f"stages: a batch of {smallest} cannot be shared among {group.size} processes")
        images = load_images(options.data, minimum_side=max(side for _, _, side in options.stages))
        images, held_out = split(images, options.validation)
        self.model = self._initial_model(images)
        self.restoration = None
        if options.objective == "latent" and options.start is None:
            raise ValueError("objective: latent aims at the latents of the weights it starts from; start names none")
        if options.objective != "rate_distortion":
            self.restoration = Restoration(options.objective, self.model)
            self.restoration.to(self.device)
        freeze(self.model, options.freeze, options.only)
        if not any(parameter.requires_grad for parameter in self.model.parameters()):
            raise ValueError("objective, freeze and only leave nothing to train")
        self.model.to(self.device, memory_format=torch.channels_last).train()
        self.optimiser = build_optimiser(options.optimiser, self.model, options.learning_rate)
        self.average = _Average(self.model, options.decay)
        self.step, self.skipped, self.seconds_before = 0, 0, 0.0
        if self.state.exists():
            self._resume()
        self.clock = self.seconds_before / (60 * options.minutes)  # part of the time box, the same in all processes
        group.copy_first(self.model.parameters())
        self.network = torch.compile(self.model) if options.compile else self.model
        batches = Batches(images, options.seed, options.mixture)
        self.feed = Feed(batches, self._request, self.step // options.steps_per_batch, options.workers, self.device)
        self.fed: tuple[Request, Batch] | None = None
        self.trials = trials(held_out, options.mixture)
        self.samples = [] if self.trials else [clean_batch(images[:16])]
        self.sums: list[Tensor] = []
        self.names: tuple[str, ...] = ()
        self.pictures = len(images)
        self.started = time.monotonic()

    @property
    def state(self) -> Path:
        return self.out / "state.pt"

    @property
    def weights(self) -> Path:
        return self.out / f"{self.model.config.name}.safetensors"

    def _initial_model(self, images: list[Tensor]) -> AICR:
        config = get_config(self.options.model)
        if self.options.start is None:
            model, linear, detail = AICR(config), config.linear_shortcut, bool(config.detail)
            initialise(model)
        else:
            start = load_model(self.options.start)
            model, linear = as_model(config, start).requires_grad_(True), False
            detail = bool(config.detail) and not start.config.detail
        # A state has the components; but the aim of "latent" is a copy of what the run began with.
        if (linear or detail) and (not self.state.exists() or self.options.objective == "latent"):
            statistics = patch_statistics(images, self.options.seed)
            if linear:
                initialise_linear(model, *principal_components(*statistics, config.latent))
            if detail:
                initialise_detail(model, *statistics)
        return model

    def _resume(self) -> None:
        state = load_state(self.state)
        for change in changed_options(state, self.options):
            self.say(f"resuming under another option, {change}")
        try:
            self.model.load_state_dict(state["model"])
            self.optimiser.load_state_dict(state["optimiser"])
            self.average.load(state["average"])
        except (RuntimeError, ValueError, KeyError) as error:
            made_for = f"{self.options.model} and {self.options.optimiser}"
            raise ValueError(f"{self.state}: not a state of {made_for}: {first_line(error)}") from error
        self.step, self.skipped, self.seconds_before = state["step"], state["skipped"], state["seconds"]

    def begin(self, journal: Journal) -> None:
        """Says and logs what this part of the run is."""
        options = self.options
        values = {
            "device": str(self.device),
            "precision": self.precision,
            "processes": self.group.size,
            "threads": torch.get_num_threads(),
            "torch": torch.__version__,
            "pictures": self.pictures,
            "data": options.data,
        }
        plain = {name: str(v) if v == math.inf else v for name, v in options.as_dict().items()}  # JSON has no inf
        journal.write(self.step, self.seconds(), {"run": values, "options": plain})
        if self.group.rank == 0:
            atomic_write(self.out / "config.toml", options.to_toml().encode())
        count = sum(p.numel() for p in self.model.parameters())
        self.say(
            f"{options.model}, {count / 1e6:.1f} M parameters, {self.pictures} pictures, {values['processes']} "
            f"process(es) on {self.device.type} in {values['precision']}, from step {self.step}"
        )

    def seconds(self) -> float:
        """Time spent, that before resuming included."""
        return self.seconds_before + time.monotonic() - self.started

    def progress(self) -> float:
        """Spent part of the run, in time or in steps, 0 to 1 and beyond."""
        return max(self.clock, self.step / self.options.max_steps)

    def _request(self, number: int) -> Request:
        """This process's part of a batch, which may be needed only some steps later."""
        options = self.options
        progress = min(1.0, max(self.clock, number * options.steps_per_batch / options.max_steps))
        count, side = next((count, side) for end, count, side in options.stages if progress <= end)
        return Request(number, self.group.rows(count), count, side)

    def _set_learning_rate(self) -> float:
        top, end = self.options.learning_rate, self.options.final_rate
        warm = min(1.0, (self.step + 1) / self.options.warmup)
        rate = end + (top * warm - end) * (0.5 + 0.5 * math.cos(math.pi * min(1.0, self.progress())))
        for group in self.optimiser.param_groups:
            group["lr"] = rate
        return rate

    def _forward(
        self, model: AICR, batch: Batch, quality: Tensor, guidance: float = 0.0
    ) -> tuple[Output, Tensor, Tensor, Tensor]:
        """The model's output, the loss, the MSE of each picture, and its guidance term."""
        options, quality = self.options, quality.to(self.device)
        source, target = (t.to(self.device, non_blocking=True) for t in batch)
        term = torch.zeros(len(quality), device=self.device)
        with autocast(self.device, self.precision):
            if guidance:
                taps, guide = [], []
                result = model(source, quality, taps)
                with torch.set_grad_enabled(not options.guidance_detach):
                    self.model.analysis(target, quality, guide)
                # A clean picture is its own guide. Its features may differ in their last bits, because those without
                # gradients are computed another way, and the derivative of an absolute value is as large for these.
                clean = (source == target).flatten(1).all(1)
                term = guidance_term(taps, guide).masked_fill(clean, 0.0)
            else:
                result = model(source, quality)
        lam = lambda_of(quality, self.model.config.lambdas)
        bpp = result.y_bpp + result.z_bpp
        loss, mse = rate_distortion_loss(
            bpp, result.picture, target, lam, options.balance, guidance * term, options.knee
        )
        return result, loss, mse, term

    def _losses(self, batch: Batch, quality: Tensor) -> dict[str, Tensor]:
        """What a step minimises, "loss", and what the log shows beside it."""
        if self.restoration is not None:
            source, target = (t.to(self.device, non_blocking=True) for t in batch)
            with autocast(self.device, self.precision):
                return {"loss": self.restoration(self.model.analysis, source, target)}
        result, loss, mse, term = self._forward(self.network, batch, quality, self.options.guidance)
        named = {
            "loss": loss,
            "bpp": (result.y_bpp + result.z_bpp).mean(),
            "z_bpp": result.z_bpp.mean(),
            "psnr": -10 * torch.log10(mse).mean(),
        }
        return named | {"guidance": term.mean()} if self.options.guidance else named

    @torch.no_grad()
    def validate(self) -> dict[str, float]:
        """Loss and PSNR of the averaged weights on the photographs kept out, clean and as the mixture makes them."""
        model = self._averaged().to(self.device, memory_format=torch.channels_last).eval()
        values = {}
        for name, trial in self.trials.items():
            _, loss, mse, _ = self._forward(model, *trial)
            values[name] = round(float(loss), 5)
            values[f"{name}_psnr"] = round(float(-10 * torch.log10(mse).mean()), 3)
        return values

    def _averaged(self) -> AICR:
        averaged = AICR(self.model.config)
        averaged.load_state_dict(self.average.values, strict=False)  # all but the tables, which the export makes
        return averaged

    def advance(self) -> None:
        """One optimiser step."""
        options = self.options
        if self.fed is None or self.step % options.steps_per_batch == 0:
            self.fed = next(self.feed)
        request, batch = self.fed
        quality = draw_qualities(options.qualities, options.seed, self.step, request.rows, self.progress())
        # the noise of a step depends on nothing before it, so that a resumed run goes on as it would have
        torch.manual_seed(int(np.random.SeedSequence((options.seed, self.step, self.group.rank)).generate_state(1)[0]))
        self._set_learning_rate()
        named = self._losses(batch, quality)
        self.names = (*named, "grad_norm")
        self.optimiser.zero_grad(set_to_none=True)
        named["loss"].backward()
        values = torch.stack([value.detach() for value in named.values()])
        values = self.group.average(self.model.parameters(), values, len(request.rows), request.count)
        norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), options.clip)
        if torch.isfinite(norm) and values[0] <= options.loss_cap:
            self.optimiser.step()
            self.average.update(self.model, self.step)
            self.sums.append(torch.cat([values, norm[None]]))
        else:
            self.skipped += 1
        self.step += 1

    def report(self) -> dict[str, float]:
        """Means over the steps since the last report that were not skipped, for the log."""
        means = torch.stack(self.sums).mean(0).tolist() if self.sums else []
        self.sums.clear()
        named = dict(zip(self.names, means, strict=False))
        return {
            "rate": self._set_learning_rate(),
            "batch": self.fed[0].count,
            "side": self.fed[0].side,
            **{name: round(mean, 5) for name, mean in named.items()},
            "skipped": self.skipped,
        }

    def checkpoint(self, journal: Journal) -> None:
        """Writes the state to resume from and the averaged weights, each whole or not at all; then tries them."""
        save_state(
            self.state,
            {
                "model": self.model.state_dict(),
                "optimiser": self.optimiser.state_dict(),
                "average": self.average.values,
                "step": self.step,
                "skipped": self.skipped,
                "seconds": self.seconds(),
                "options": self.options.as_dict() | {"data": self.options.data},
            },
        )
        shown = [trial.batch.source.clamp(0, 1) for trial in self.trials.values()]  # noise may lie outside
        export_weights(self.weights, self._averaged(), {"steps": str(self.step)}, shown or self.samples)
        losses = self.validate()
        journal.write(self.step, self.seconds(), losses)
        told = "".join(f", {name.replace('_', ' ')} {loss:.4f}" for name, loss in losses.items())
        self.say(f"step {self.step}, {self.seconds() / 60:.1f} minutes{told}")

    def draw(self) -> None:
        """The curves of the log, as a picture beside it."""
        try:
            draw([self.out / "log.jsonl"], self.out / "curve.png")
        except ImportError as error:
            self.say(f"no curve.png, which needs matplotlib ({error})")
        except (OSError, ValueError) as error:  # the run is done all the same
            self.say(f"no curve.png: {first_line(error)}")
