"""What steers a run: learning rate, averaging of the weights, limit of the gradient, time box and checkpoints.

No test here waits: by the clock that the loop reads, every optimiser step takes one minute.
"""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import NamedTuple

import pytest
import torch
from torch import Tensor, nn
from training import log_of, short

from aicr_ext.train import loop, train
from aicr_ext.train.data import Batches


class Step(NamedTuple):
    """What an optimiser step was taken with, and what it led to."""

    rate: float
    gradients: dict[str, Tensor]
    before: dict[str, Tensor]
    after: dict[str, Tensor]


@pytest.fixture
def taken(monkeypatch):
    """A list of the optimiser steps of the runs that follow, each of which takes a minute by the clock of the loop."""
    steps, now, build = [], [5000.0], loop.build_optimiser

    def build_noting(name, model, rate):
        optimiser = build(name, model, rate)
        step = optimiser.step

        def values():
            return {name: p.detach().clone() for name, p in model.named_parameters()}

        def note():
            (rate,) = {group["lr"] for group in optimiser.param_groups}
            gradients = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
            before = values()
            step()
            steps.append(Step(rate, gradients, before, values()))
            now[0] += 60

        monkeypatch.setattr(optimiser, "step", note)
        return optimiser

    monkeypatch.setattr(loop, "build_optimiser", build_noting)
    monkeypatch.setattr(loop, "export_weights", lambda path, *rest: path.touch())  # most of the time of such short runs
    monkeypatch.setattr(loop, "time", SimpleNamespace(monotonic=lambda: now[0]))
    return steps


def length(tensors):
    return float(torch.linalg.vector_norm(torch.cat([t.flatten() for t in tensors])))


def state_of(out):
    return torch.load(out / "state.pt", weights_only=True)


def checkpoints(out):
    """The steps after which a run wrote its state and its weights, which it then tried."""
    return [entry["step"] for entry in log_of(out) if "valid_clean" in entry]


@pytest.mark.parametrize("optimiser", ["adamw", "muon"])
def test_the_learning_rate_warms_up_and_follows_one_cosine(optimiser, photographs, tmp_path, tiny, taken):
    rates = {"learning_rate": 8e-4, "final_rate": 1e-4, "warmup": 4}
    train(short(photographs, tmp_path / "run", optimiser=optimiser, max_steps=12, report_every=1, **rates))
    expected = [
        1e-4 + (8e-4 * min(1, (step + 1) / 4) - 1e-4) * (1 + math.cos(math.pi * step / 12)) / 2 for step in range(13)
    ]
    assert [step.rate for step in taken] == pytest.approx(expected[:12])
    # a report comes after its step, and tells the rate of the next one
    reports = {entry["step"]: entry["rate"] for entry in log_of(tmp_path / "run") if "rate" in entry}
    assert reports == pytest.approx(dict(enumerate(expected[1:], 1)))
    # the same by hand: the first step, the third of four that warm up, a third of the run, its middle, its end
    assert taken[0].rate == pytest.approx(8e-4 / 4)
    assert reports[2] == pytest.approx(1e-4 + (6e-4 - 1e-4) * (2 + math.sqrt(3)) / 4)
    assert [reports[step] for step in (4, 6, 12)] == pytest.approx([6.25e-4, 4.5e-4, 1e-4])


def test_the_average_follows_its_formula():
    model = nn.Linear(1, 1, bias=False)
    at = model.weight.data.fill_
    at(2.0)
    average = loop._Average(model, 0.28)
    value = average.values["weight"]
    at(12.0)
    assert float(value) == 2  # a copy
    average.update(model, 0)
    assert float(value) == pytest.approx(2 / 10 + 12 * 9 / 10)  # it begins short: 1/10 of the old value stays,
    at(-10.0)
    average.update(model, 1)
    assert float(value) == pytest.approx(11 * 2 / 11 - 10 * 9 / 11)  # then 2/11,
    before = float(value)
    average.update(model, 2)
    assert float(value) == pytest.approx(before * 3 / 12 - 10 * 9 / 12)  # then 3/12,
    for step in (3, 4, 1000):  # then the decay, which is less than 4/13
        before = float(value)
        at(float(step))
        average.update(model, step)
        assert float(value) == pytest.approx(0.28 * before + 0.72 * step)
    average.load({"weight": torch.tensor([[7.0]])})
    assert float(average.values["weight"]) == 7
    assert model.weight.item() == 1000


def test_a_long_average_forgets_the_start():
    """A hundred steps leave nothing of the drawn weights, although 0.999 to the hundredth is 0.9."""
    model = nn.Linear(1, 1, bias=False)
    model.weight.data.fill_(1.0)
    average = loop._Average(model, 0.999)
    model.weight.data.fill_(0.0)
    left = []
    for step in range(100):
        average.update(model, step)
        left.append(float(average.values["weight"]))
    assert left[9] == pytest.approx(math.prod((1 + step) / (10 + step) for step in range(10)))
    assert left[-1] < 1e-10
    model.weight.data.fill_(1.0)
    average.update(model, 10**6)
    assert float(average.values["weight"]) == pytest.approx(0.001)


@pytest.mark.parametrize("decay", [0.0, 0.28])
def test_a_run_averages_the_weights_of_its_steps(decay, photographs, tmp_path, tiny, taken):
    train(short(photographs, tmp_path / "run", decay=decay, learning_rate=0.05))
    expected = dict(taken[0].before)
    for number, step in enumerate(taken):
        kept = min(decay, (1 + number) / (10 + number))
        expected = {name: kept * old + (1 - kept) * step.after[name] for name, old in expected.items()}
    state = state_of(tmp_path / "run")
    assert state["average"].keys() == expected.keys()
    torch.testing.assert_close(dict(state["average"]), expected)
    weights = {name: state["model"][name] for name in expected}
    torch.testing.assert_close(weights, taken[-1].after, rtol=0, atol=0)
    if decay == 0:
        torch.testing.assert_close(dict(state["average"]), weights, rtol=0, atol=0)


def test_the_norm_of_the_gradient_is_limited(photographs, tmp_path, tiny, taken):
    def first_step(name, **changes):
        train(short(photographs, tmp_path / name, max_steps=1, report_every=1, warmup=1, **changes))
        return taken.pop(), log_of(tmp_path / name)[1]["grad_norm"]

    free, norm = first_step("free", clip=1e9)
    assert length(free.gradients.values()) == pytest.approx(norm, rel=1e-4)  # what is below the limit stays as it is
    for limit in (0.25 * norm, 1e-9):
        limited, told = first_step(f"limit-{limit}", clip=limit)
        assert told == norm  # the log has it as it was
        assert length(limited.gradients.values()) == pytest.approx(limit, rel=1e-3)
        parts = {name: gradient * (limit / norm) for name, gradient in free.gradients.items()}
        torch.testing.assert_close(limited.gradients, parts, rtol=1e-3, atol=1e-3 * limit)

    # AdamW heeds the size of its first gradient only where that is near the 1e-8 it adds to the denominator
    def moved(step):
        return length(new - old for new, old in zip(step.after.values(), step.before.values(), strict=True))

    assert 0 < moved(limited) < 0.2 * moved(free)


def test_every_gradient_is_limited(photographs, tmp_path, tiny, taken):
    train(short(photographs, tmp_path / "run", clip=0.05, report_every=1))
    assert len(taken) == 6
    assert max(length(step.gradients.values()) for step in taken) < 0.05 * 1.001
    assert min(entry["grad_norm"] for entry in log_of(tmp_path / "run") if "grad_norm" in entry) > 0.05


def test_the_clock_ends_a_run_and_its_schedule(photographs, tmp_path, tiny, taken):
    rates = {"learning_rate": 8e-4, "final_rate": 0.0, "warmup": 1}
    stages = ((0.5, 4, 64), (1.0, 2, 64))
    train(short(photographs, tmp_path / "run", minutes=5, max_steps=20, report_every=1, stages=stages, **rates))
    log = log_of(tmp_path / "run")
    assert len(taken) == state_of(tmp_path / "run")["step"] == log[-1]["step"] == 5
    assert [entry["seconds"] for entry in log] == [0, 60, 120, 180, 240, 300, 300]
    # the time box is nearer to its end than the number of steps, in every step
    assert [step.rate for step in taken] == pytest.approx(
        [8e-4 * (1 + math.cos(math.pi * minute / 5)) / 2 for minute in range(5)]
    )
    assert [entry["batch"] for entry in log if "batch" in entry] == [4, 4, 4, 2, 2]


def test_time_before_a_stop_counts(photographs, tmp_path, tiny, taken):
    train(short(photographs, tmp_path / "run", minutes=5, max_steps=3))
    assert state_of(tmp_path / "run")["seconds"] == 180
    train(short(photographs, tmp_path / "run", minutes=5, max_steps=20))
    assert len(taken) == state_of(tmp_path / "run")["step"] == 5
    assert state_of(tmp_path / "run")["seconds"] == 300


@pytest.mark.parametrize("minutes, expected", [(2.5, [3, 6, 7]), (4.5, [5, 7]), (100.0, [7])])
def test_a_run_saves_every_so_many_minutes(minutes, expected, photographs, tmp_path, tiny, taken):
    train(short(photographs, tmp_path / "run", save_every=minutes, max_steps=7))
    assert checkpoints(tmp_path / "run") == expected


def test_a_run_that_breaks_down_leaves_its_last_checkpoint(photographs, tmp_path, tiny, taken, monkeypatch):
    make = Batches.make

    def fail(self, number, *rest):
        if number == 5:
            raise OSError("the disk is gone")
        return make(self, number, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(Batches, "make", fail)
        with pytest.raises(OSError, match="the disk is gone"):
            train(short(photographs, tmp_path / "run", save_every=2.5))
    assert len(taken) == 5
    state = state_of(tmp_path / "run")
    assert (state["step"], state["seconds"]) == (3, 180)
    assert (tmp_path / "run" / "tiny.safetensors").exists()
    train(short(photographs, tmp_path / "run"))
    assert [entry["step"] for entry in log_of(tmp_path / "run") if "run" in entry] == [0, 3]
    assert len(taken) == 5 + 3
