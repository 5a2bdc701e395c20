"""Two processes train what one process trains."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from training import log_of, short

from aicr_ext.train import TrainingOptions, train
from aicr_ext.train.mixture import Mixture
from aicr_ext.train.parallel import Group

_HERE = Path(__file__).parent

# The noise that stands for rounding is drawn by each process for itself; without it the runs can be compared.
_PROGRAM = """
import json, sys
import torch
torch.set_num_threads(1)
torch.rand_like = lambda x: torch.full_like(x, 0.5)
from training import TINY, short
from aicr_ext.model.config import CONFIGS
from aicr_ext.train import loop
from aicr_ext.train.mixture import Mixture
CONFIGS[TINY.name] = TINY
loop.draw = lambda logs, out: None
changes = json.loads(sys.argv[3])
loop.train(short(sys.argv[1], sys.argv[2], mixture=Mixture(clean=0.5), stages=((1.0, 5, 64),), **changes), print)
"""


def start(processes: int, data: Path, out: Path, **changes: object) -> list[subprocess.Popen]:
    """The program above in so many processes, as torchrun starts them."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    found = os.environ | {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": str(processes)}
    found |= {"PYTHONPATH": str(_HERE), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", _PROGRAM, str(data), str(out), json.dumps(changes)]
    return [
        subprocess.Popen(command, env=found | {"RANK": str(rank)}, stdout=subprocess.PIPE, text=True)
        for rank in range(processes)
    ]


def finish(processes: list[subprocess.Popen]) -> list[str]:
    printed = [process.communicate(timeout=120)[0] for process in processes]
    assert [process.returncode for process in processes] == [0] * len(processes)
    return printed


def test_two_processes_equal_one(photographs, tmp_path, tiny, monkeypatch):
    one, two = tmp_path / "one", tmp_path / "two"
    running = start(2, photographs, two, max_steps=2, report_every=1)
    monkeypatch.setattr(torch, "rand_like", lambda x: torch.full_like(x, 0.5))
    mixture = Mixture(clean=0.5)
    train(short(photographs, one, mixture=mixture, stages=((1.0, 5, 64),), max_steps=2, report_every=1))
    printed = finish(running)
    assert "2 process(es)" in printed[0]
    # Only the first one talks, and only it writes; gloo itself does where torch is older.
    assert [line for line in printed[1].splitlines() if not line.startswith("[Gloo]")] == []
    logs = [[entry for entry in log_of(out) if "loss" in entry] for out in (one, two)]
    assert [entry["step"] for entry in logs[1]] == [1, 2]
    for mine, theirs, tolerance in zip(*logs, (1e-5, 1e-2), strict=True):
        assert mine["loss"] == pytest.approx(theirs["loss"], rel=tolerance)
        assert mine["grad_norm"] == pytest.approx(theirs["grad_norm"], rel=tolerance)
    states = [torch.load(out / "state.pt", weights_only=True) for out in (one, two)]
    # Adam divides a gradient by its size, so that rounding moves a parameter whose gradient is nearly 0; its first
    # moment, the average of the gradients, shows how close the steps were.
    moments = [[s["exp_avg"] for s in state["optimiser"]["state"].values()] for state in states]
    for mine, theirs in zip(*moments, strict=True):
        torch.testing.assert_close(mine, theirs, atol=0.1 * float(mine.abs().max()), rtol=0)
    apart = [(states[0]["average"][name] - value).abs().flatten() for name, value in states[1]["average"].items()]
    assert float(torch.cat(apart).mean()) < 0.01 * TrainingOptions.learning_rate


def test_a_group_of_one():
    group = Group("cpu")
    with group:
        assert (group.rank, group.size, group.device) == (0, 1, torch.device("cpu"))
        assert group.rows(5) == range(5)
        assert group.furthest(0.5, True) == (0.5, True)


@pytest.mark.parametrize("count, size", [(8, 3), (5, 2), (4, 4)])
def test_rows_are_shared_without_gap(count, size, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", str(size))
    parts = []
    for rank in range(size):
        monkeypatch.setenv("RANK", str(rank))
        parts.append(Group("cpu").rows(count))
    assert [row for part in parts for row in part] == list(range(count))
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


def test_each_process_takes_its_own_gpu(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert Group("cuda").device == torch.device("cuda:1")
    with pytest.raises(ValueError, match="device: expected cpu or cuda for 2 processes, got 'cuda:0'"):
        Group("cuda:0")
