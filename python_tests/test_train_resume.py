"""A run that was stopped goes on as if it had not been; what it cannot resume from, it refuses."""

from __future__ import annotations

import signal
from dataclasses import replace

import pytest
import torch
from training import TONED, log_of, short

from aicr_ext.cli import main
from aicr_ext.codec.checkpoint import export_weights, untrained
from aicr_ext.files import is_temporary
from aicr_ext.train import TrainingOptions, train
from aicr_ext.train.data import Batches
from aicr_ext.train.machine import Signals
from aicr_ext.train.mixture import Mixture
from aicr_ext.train.state import changed_options


def state_of(out):
    return torch.load(out / "state.pt", weights_only=True)


def interrupt_at(number, monkeypatch, kind=signal.SIGTERM):
    """A signal arrives while that batch is made."""
    make = Batches.make

    def interrupted(self, n, *rest):
        if n == number:
            signal.raise_signal(kind)
        return make(self, n, *rest)

    monkeypatch.setattr(Batches, "make", interrupted)


@pytest.mark.parametrize("optimiser, workers", [("adamw", 2), ("muon", 0)])
def test_resumed_equals_unbroken(optimiser, workers, photographs, tmp_path, tiny, monkeypatch):
    def options(name, **changes):
        stages, mixture = ((0.5, 4, 64), (1.0, 2, 64)), Mixture(clean=0.5)
        changes = {"steps_per_batch": 2, "max_steps": 9, "optimiser": optimiser} | changes
        return short(photographs, tmp_path / name, stages=stages, mixture=mixture, **changes)

    train(options("whole"))
    with monkeypatch.context() as patch:
        interrupt_at(2, patch)
        with pytest.raises(KeyboardInterrupt):
            train(options("parts"))
    assert state_of(tmp_path / "parts")["step"] == 5  # the step on batch 2 was finished, its second one not begun
    train(options("parts", workers=workers))
    for kind in ("model", "average"):
        one, other = (state_of(tmp_path / name)[kind] for name in ("whole", "parts"))
        assert all(torch.equal(one[key], other[key]) for key in one)
    assert [e["step"] for e in log_of(tmp_path / "parts") if "run" in e] == [0, 5]
    # signals are handled as usual again
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


def test_a_resumed_run_has_the_same_aim(photographs, tmp_path, toned, monkeypatch):
    """Latents are aimed at with the detail that the run's start got, which is nowhere but in its beginning."""
    start = tmp_path / "start.safetensors"
    export_weights(start, untrained(replace(TONED, detail=0)), {})

    def options(name):
        changes = {"model": TONED.name, "start": str(start), "objective": "latent", "max_steps": 4}
        return short(photographs, tmp_path / name, mixture=Mixture(clean=0.5), **changes)

    train(options("whole"))
    with monkeypatch.context() as patch:
        interrupt_at(1, patch)
        with pytest.raises(KeyboardInterrupt):
            train(options("parts"))
    train(options("parts"))
    one, other = (state_of(tmp_path / name)["model"] for name in ("whole", "parts"))
    assert all(torch.equal(one[key], other[key]) for key in one)
    (tmp_path / "elsewhere.safetensors").write_bytes(start.read_bytes())
    said = []
    train(replace(options("parts"), max_steps=5, start=str(tmp_path / "elsewhere.safetensors")), said.append)
    assert [line for line in said if "another option, start: " in line]


def test_nothing_left_to_train(photographs, tmp_path, tiny):
    with pytest.raises(ValueError, match="objective, freeze and only leave nothing to train"):
        train(short(photographs, tmp_path / "run", only=["synthesis"], freeze=["synthesis"]))


@pytest.mark.parametrize("kind", [signal.SIGINT, signal.SIGTERM])
def test_the_interrupted_command_leaves_a_checkpoint(kind, photographs, tmp_path, tiny, monkeypatch, capsys):
    interrupt_at(1, monkeypatch, kind)
    arguments = [str(photographs), str(tmp_path / "run"), "--model", tiny, "--set", "stages=[[1.0, 4, 64]]"]
    assert main(["train", *arguments, "--max-steps", "50"]) == 130
    assert "interrupted" in capsys.readouterr().err
    assert state_of(tmp_path / "run")["step"] == 2
    assert (tmp_path / "run" / "tiny.safetensors").exists()


def test_a_second_signal_acts_as_usual():
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a program in the background ignores it
    try:
        with Signals() as signals:
            signal.raise_signal(signal.SIGINT)
            assert signals.came
            with pytest.raises(KeyboardInterrupt):
                signal.raise_signal(signal.SIGINT)
    finally:
        signal.signal(signal.SIGINT, before)


def test_a_state_without_options_is_resumed(photographs, tmp_path, tiny):
    """As versions before the options were kept have written it."""
    options = short(photographs, tmp_path / "run", max_steps=2)
    train(options)
    old = {k: v for k, v in state_of(tmp_path / "run").items() if k != "options"}
    torch.save(old, tmp_path / "run" / "state.pt")
    options.max_steps, said = 4, []
    train(options, said.append)
    assert state_of(tmp_path / "run")["step"] == 4
    assert not [line for line in said if "another option" in line]


def test_changed_options_are_said(photographs, tmp_path, tiny):
    train(short(photographs, tmp_path / "run", max_steps=2))
    said = []
    train(short(photographs, tmp_path / "run", max_steps=3, clip=0.5, workers=1, report_every=1), said.append)
    changes = [line for line in said if "another option" in line]
    assert [line.rpartition(", ")[2] for line in changes] == ["max_steps: 2 -> 3", "clip: 2.0 -> 0.5"]


@pytest.mark.parametrize("name, value", [("model", "aicr-s"), ("optimiser", "muon")])
def test_what_a_state_cannot_serve(name, value):
    before = TrainingOptions("in", "out").as_dict()
    with pytest.raises(ValueError, match=f"{name}: the run in out was made with .*--start FILE.safetensors"):
        changed_options({"options": before}, TrainingOptions("in", "out", **{name: value}))


@pytest.mark.parametrize(
    "damage, message",
    [
        (lambda path: path.write_bytes(path.read_bytes()[:3000]), "damaged, or not a training state"),
        (lambda path: path.write_bytes(b""), "damaged, or not a training state"),
        (lambda path: path.write_text("a poem"), "damaged, or not a training state"),
        (lambda path: torch.save({"model": {}}, path), "not a training state of this package"),
        (lambda path: torch.save([1], path), "not a training state of this package"),
        (lambda path: torch.save(torch.load(path) | {"model": {}}, path), "not a state of tiny and adamw"),
    ],
)
def test_damaged_and_foreign_states(damage, message, photographs, tmp_path, tiny):
    train(short(photographs, tmp_path / "run", max_steps=1))
    state = tmp_path / "run" / "state.pt"
    damage(state)
    before = state.read_bytes()
    with pytest.raises(ValueError, match=f"state.pt: {message}"):
        train(short(photographs, tmp_path / "run"))
    assert state.read_bytes() == before


def test_a_state_is_written_whole_or_not_at_all(photographs, tmp_path, tiny, monkeypatch):
    train(short(photographs, tmp_path / "run", max_steps=1))
    before = (tmp_path / "run" / "state.pt").read_bytes()

    def full_disk(state, file):
        file.write(b"half")
        raise OSError("no space left")

    monkeypatch.setattr(torch, "save", full_disk)
    with pytest.raises(OSError, match="no space left"):
        train(short(photographs, tmp_path / "run", max_steps=2))
    assert (tmp_path / "run" / "state.pt").read_bytes() == before
    assert not [path for path in (tmp_path / "run").iterdir() if is_temporary(path)]
