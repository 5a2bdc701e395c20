"""Ctrl-C during training ends it in good order; the second one ends it at once."""

from __future__ import annotations

import signal
import threading
from pathlib import Path

import pytest
import torch
from pictures import smooth

from aicr_ext.train import loop
from aicr_ext.train.interrupt import noted_interrupt


def test_the_first_interrupt_is_noted_and_the_second_interrupts():
    before = signal.getsignal(signal.SIGINT)
    with noted_interrupt() as noted:
        assert not noted
        signal.raise_signal(signal.SIGINT)
        assert noted
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is before


def test_other_threads_go_without():
    seen = []

    def work() -> None:
        with noted_interrupt() as noted:
            seen.append(noted)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [[]]


def test_training_ends_with_its_state_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "data").mkdir()
    for i in range(2):
        smooth(80 + 8 * i, 80).save(tmp_path / "data" / f"{i}.png")

    def advance(run: loop._Run) -> None:
        run.step += 1
        if run.step == 3:
            signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(loop._Run, "advance", advance)
    options = loop.TrainingOptions(str(tmp_path / "data"), str(tmp_path / "run"), stages=((1.0, 2, 64),), max_steps=10)
    assert loop.train(options).exists()
    assert torch.load(tmp_path / "run" / "state.pt", weights_only=True)["step"] == 3
