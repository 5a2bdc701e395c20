"""The script for a CUDA machine, rehearsed on the CPU: what it leaves behind, whatever goes wrong on the way."""

from __future__ import annotations

import csv
import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
from pictures import smooth

from aicr_ext.train import parts
from aicr_ext.weights import load_weights

ROOT = Path(__file__).parent.parent
SCRIPT = ROOT / "benchmarks" / "gpu_run.sh"

pytestmark = pytest.mark.skipif(shutil.which("bash") is None, reason="no bash")


def gpu_run(*arguments: str | Path, python: str | Path = sys.executable, **environment: str):
    command = ["bash", SCRIPT, "--python", python, *arguments]
    environment = os.environ | {"OMP_NUM_THREADS": "1"} | environment
    return subprocess.run(list(map(str, command)), capture_output=True, text=True, env=environment, check=False)


def summary(out: Path) -> dict:
    return json.loads((out / "summary.json").read_text())


def statuses(out: Path) -> dict[str, str]:
    return {name: step["status"] for name, step in summary(out)["steps"].items()}


def interpreter(folder: Path, module: str, answer: str) -> Path:
    """An interpreter that answers in its own way when it is asked to run a module."""
    path = folder / "python"
    path.write_text(f'#!/bin/sh\ncase "$*" in "-m {module} "*) {answer};; esac\nexec {sys.executable} "$@"\n')
    path.chmod(0o755)
    return path


@pytest.fixture(scope="module")
def rehearsal(tmp_path_factory) -> Path:
    """A folder with photographs in ``data``, a run of all steps in ``run`` and what it delivered in ``out``."""
    folder = tmp_path_factory.mktemp("rehearsal")
    (folder / "data").mkdir()
    for i in range(3):
        smooth(256 + 16 * i, 256).save(folder / "data" / f"{i}.jpg")
    options = ["--dry-run", "--send-state", "--commit", "abc1234", "--run", folder / "run"]
    done = gpu_run(*options, folder / "data", folder / "out", "10")
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


def test_every_step_is_reported(rehearsal):
    report = summary(rehearsal / "out")
    assert statuses(rehearsal / "out") == dict.fromkeys(["report", "gpu_tests", "bench_ops", "tests", "train"], "ok")
    assert (report["commit"], report["device"], report["minutes"]) == ("abc1234", "cpu", 10)
    assert report["last_line_of_the_training_log"]["step"] == 2
    with tarfile.open(rehearsal / "out" / "results.tar.gz") as tar:
        names = set(tar.getnames())
        rows = list(csv.DictReader(io.TextIOWrapper(tar.extractfile("results/ops-cpu.csv"))))
    assert {f"results/{name}.log" for name in ("report", "gpu_tests", "tests", "train")} < names
    assert "results/log.jsonl" in names
    assert {row["commit"] for row in rows} == {"abc1234"}
    assert all(row["torch"] and row["cpu"] for row in rows)


def test_what_is_delivered_keeps_the_limits(rehearsal):
    files = list((rehearsal / "out").rglob("*"))
    assert all(path.is_file() and path.parent == rehearsal / "out" for path in files)
    assert len(files) <= 8
    assert max(path.stat().st_size for path in files) <= 16e6
    assert sum(path.stat().st_size for path in files) <= 60e6
    config, _, _ = load_weights(rehearsal / "out" / "aicr-t.safetensors")
    assert config.name == "aicr-t"


def test_what_waits_comes_with_later_calls_and_resumes_elsewhere(rehearsal, tmp_path):
    """The state is larger than one call may bring back."""
    state = tmp_path / "state"
    shutil.copytree(rehearsal / "out", state)
    waiting = summary(state)["waiting"]
    while waiting:
        out = tmp_path / f"{len(waiting)} left"
        done = gpu_run("--run", rehearsal / "run", "--steps", "deliver", rehearsal / "data", out, "2")
        assert done.returncode == 0, done.stdout + done.stderr
        shutil.copytree(out, state, dirs_exist_ok=True)
        assert len(summary(out)["waiting"]) < len(waiting)
        waiting = summary(out)["waiting"]
    original = (rehearsal / "run" / "train" / "state.pt").read_bytes()
    assert parts.join(state, tmp_path / "joined", "state.pt").read_bytes() == original

    (state / "log.jsonl").write_text('{"seconds": 600}\n{"sec')
    options = ["--device", "cpu", "--run", tmp_path / "run", "--steps", "train", "--state", state]
    assert gpu_run(*options, tmp_path / "nowhere", tmp_path / "out", "5").returncode == 1
    assert (tmp_path / "run" / "train" / "state.pt").read_bytes() == original
    log = (tmp_path / "run" / "results" / "train.log").read_text()
    assert "training to minute 13." in log  # 10 before, 5 now less what starting and writing take
    assert "nowhere' does not exist" in log

    next(state.glob("state.pt.part-001")).write_bytes(b"damaged")
    shutil.rmtree(tmp_path / "run")
    assert gpu_run(*options, rehearsal / "data", tmp_path / "again", "5").returncode == 1
    assert "state.pt.part-001: damaged" in (tmp_path / "run" / "results" / "train.log").read_text()


def test_a_step_that_fails_does_not_stop_the_next(tmp_path):
    python = interpreter(tmp_path, "pytest", "echo no such luck; exit 3")
    options = ["--dry-run", "--run", tmp_path / "run", "--steps", "gpu_tests,tests,bench_coder"]
    done = gpu_run(*options, tmp_path, tmp_path / "out", "5", python=python)
    assert done.returncode == 1
    assert statuses(tmp_path / "out") == {"gpu_tests": "failed", "bench_coder": "ok", "tests": "failed"}
    assert summary(tmp_path / "out")["steps"]["gpu_tests"]["exit_code"] == 3
    assert "no such luck" in done.stdout
    with tarfile.open(tmp_path / "out" / "results.tar.gz") as tar:
        assert b"no such luck" in tar.extractfile("results/gpu_tests.log").read()


@pytest.mark.parametrize(
    "ends_with, status, recorded, returned", [(130, "stopped, to go on", 0, 0), (7, "failed", 7, 1)]
)
def test_a_training_that_was_stopped_has_not_failed(ends_with, status, recorded, returned, tmp_path):
    """130 is what it ends with when it was told to stop and wrote its state; anything else is a failure."""
    python = interpreter(tmp_path, "aicr_ext.train", f"exit {ends_with}")
    options = ["--dry-run", "--run", tmp_path / "run", "--steps", "train"]
    done = gpu_run(*options, tmp_path, tmp_path / "out", "5", python=python)
    assert done.returncode == returned, done.stdout + done.stderr
    step = summary(tmp_path / "out")["steps"]["train"]
    assert (step["status"], step["exit_code"]) == (status, recorded)


def test_tests_that_were_stopped_have_failed(tmp_path):
    """Only a training can go on."""
    python = interpreter(tmp_path, "pytest", "exit 130")
    done = gpu_run(
        "--dry-run", "--run", tmp_path / "run", "--steps", "tests", tmp_path, tmp_path / "out", "5", python=python
    )
    assert done.returncode == 1
    assert summary(tmp_path / "out")["steps"]["tests"]["exit_code"] == 130


def test_the_minutes_are_kept(tmp_path):
    python = interpreter(tmp_path, "pytest", "exec sleep 100")
    options = ["--device", "cpu", "--run", tmp_path / "run", "--steps", "gpu_tests,tests,train"]
    assert gpu_run(*options, tmp_path, tmp_path / "out", "0.2", python=python).returncode == 1
    assert statuses(tmp_path / "out") == {
        "gpu_tests": "stopped at its time limit",
        "tests": "skipped",
        "train": "skipped",
    }
    assert summary(tmp_path / "out")["seconds_used"] < 12


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["data", "out"], "expected DATA OUT MINUTES, got: data out"),
        (["data", "out", "ten"], "MINUTES must be a number, got ten"),
        (["data", "out", "1", "--wheel", "x"], "unknown option --wheel"),
        (["data", "out", "1", "--run"], "--run needs a value"),
        (["data", "out", "1", "--steps", "report,dance"], "--steps: dance is none of report"),
        (["data", "out", "1", "--device", "tpu"], "--device must be cuda or cpu, got tpu"),
        (["data", "out", "1", "--state", "/nonexistent"], "no such folder: /nonexistent"),
        (["data", "out", "1", "--train-minutes", "all"], "--train-minutes must be a number, got all"),
        (["data", ROOT / "docs", "1"], "OUT must be empty"),
    ],
)
def test_wrong_usage_is_named_and_nothing_is_touched(arguments, message, tmp_path):
    done = gpu_run(*[tmp_path / a if a in ("data", "out") else a for a in arguments])
    assert done.returncode == 2
    assert message.replace("data out", f"{tmp_path}/data {tmp_path}/out") in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_help_is_the_head_of_the_script():
    done = gpu_run("--help")
    assert done.returncode == 0
    assert done.stdout.startswith("Everything that is worth doing on a CUDA machine")
    assert "set -e" not in done.stdout


def test_wheels_are_asked_for_by_their_pinned_version(tmp_path):
    python = tmp_path / "python"
    python.write_text('#!/bin/sh\necho "$@"\nmkdir -p "$WHERE"\n')
    python.chmod(0o755)
    environment = os.environ | {"PYTHON": str(python), "WHERE": str(tmp_path / "wheels"), "PYTHON_VERSION": "3.13"}

    def wheels(*arguments: str) -> subprocess.CompletedProcess:
        command = ["bash", str(ROOT / "benchmarks" / "wheels.sh"), *arguments]
        return subprocess.run(command, capture_output=True, text=True, env=environment, check=False)

    constraints = (ROOT / "constraints.txt").read_text().lower().replace("_", "-").splitlines()
    done = wheels(str(tmp_path / "wheels"), "NumPy", "pytorch_msssim")
    words = done.stdout.split()
    assert done.returncode == 0, done.stderr
    assert words[:3] == ["-m", "pip", "download"]
    assert "--no-deps" in words
    assert words[words.index("--python-version") + 1] == "3.13"
    assert {word for word in words if "==" in word} < set(constraints)
    assert [word.partition("==")[0] for word in words if "==" in word] == ["numpy", "pytorch-msssim"]
    assert "is not in constraints.txt" in wheels(str(tmp_path / "wheels"), "left-pad").stderr
    assert wheels().returncode == 2
