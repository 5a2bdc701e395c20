"""The script for a CUDA machine, rehearsed on the CPU: what it leaves behind, whatever goes wrong on the way."""

from __future__ import annotations

import argparse
import csv
import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch
from pictures import smooth

from aicr_ext import cli_profile
from aicr_ext.profiling import Roofs
from aicr_ext.train import parts
from aicr_ext.weights import load_weights
from benchmarks import coder, cross_device, ops, predictions, speed

ROOT = Path(__file__).parent.parent
SCRIPT = ROOT / "benchmarks" / "gpu_run.sh"

#: Steps of the rehearsal; what the others run has tests of its own, and one that is slow runs everything.
STEPS = ["report", "resources", "gpu_tests", "bench_ops", "tests", "train"]
#: Steps that are the same wherever they run, and nothing of which needs a GPU to be started.
ON_A_GPU = ["gpu_tests", "cross_device", "speed", "bench_ops", "kernels", "bench_coder", "profile", "sanitize"]
ON_A_GPU += ["bench_compiled", "ncu", "bench_cpu"]
BLOCKS = ["transposed_attention", "spatial_attention", "gated_convolutions"]

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


def fast_clock(folder: Path) -> dict[str, str]:
    """The environment of a run in which steps that would use up their seconds are told to stop after one of them.

    The clock of the script is put forward by all of them then. So a test of what happens when time is over can leave
    time for a slow start on a busy machine, and does not take it.
    """
    (folder / "clock.sh").write_text(
        "timeout() {\n"
        "  local options=() code\n"
        '  while [[ $1 == -* ]]; do options+=("$1") && shift; done\n'
        '  command timeout "${options[@]}" 1 "${@:2}" || { code=$? SECONDS=$((SECONDS + $1)) && return $code; }\n'
        "}\n"
    )
    return {"BASH_ENV": str(folder / "clock.sh")}


@pytest.fixture(scope="module")
def rehearsal(tmp_path_factory) -> Path:
    """A folder with photographs in ``data``, a run of some steps in ``run`` and what it delivered in ``out``."""
    folder = tmp_path_factory.mktemp("rehearsal")
    (folder / "data").mkdir()
    for i in range(3):
        smooth(256 + 16 * i, 256).save(folder / "data" / f"{i}.jpg")
    options = ["--dry-run", "--send-state", "--commit", "abc1234", "--run", folder / "run", "--seed", "7"]
    done = gpu_run(*options, "--steps", ",".join(STEPS), folder / "data", folder / "out", "10")
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


def test_every_step_is_reported(rehearsal):
    report = summary(rehearsal / "out")
    assert statuses(rehearsal / "out") == dict.fromkeys(STEPS, "ok") | {"resources": "not here"}
    assert (report["commit"], report["device"], report["minutes"]) == ("abc1234", "cpu", 10)
    assert report["last_line_of_the_training_log"]["step"] == 2
    with tarfile.open(rehearsal / "out" / "results.tar.gz") as tar:
        names = set(tar.getnames())
        rows = list(csv.DictReader(io.TextIOWrapper(tar.extractfile("results/ops-cpu.csv"))))
    assert {f"results/{name}.log" for name in ("report", "gpu_tests", "tests", "train")} < names
    assert {"results/log.jsonl", "results/summary.md"} < names
    assert {row["commit"] for row in rows} == {"abc1234"}
    assert all(row["torch"] and row["cpu"] for row in rows)
    page = (rehearsal / "out" / "summary.md").read_text()
    assert "torch" in page
    assert "commit abc1234" in page
    assert "| layer_norm2d | float32 |" in page
    assert " passed" in page
    assert "AICR_TEST_SEED=7" in (rehearsal / "run" / "results" / "gpu_tests.log").read_text()


@pytest.mark.slow
def test_all_of_it_runs_on_a_cpu(rehearsal, tmp_path):
    options = ["--dry-run", "--run", tmp_path / "run"]
    environment = {"PATH": f"{stubs(tmp_path)}:{os.environ['PATH']}"}
    done = gpu_run(*options, rehearsal / "data", tmp_path / "out", "60", **environment)  # nothing for lack of time
    assert done.returncode == 0, done.stdout + done.stderr
    found = statuses(tmp_path / "out")
    assert found.pop("resources") == "not here"
    assert set(found.values()) == {"ok"}
    measured = {"speed", "bench_ops", "kernels", "bench_coder", "profile", "bench_compiled", "ncu", "bench_cpu"}
    assert found.keys() == measured | {"report", "gpu_tests", "cross_device", "sanitize", "tests", "train"}


# What it calls on a GPU, without one


PROGRAMS = ("compute-sanitizer", "ncu")


def stubs(folder: Path) -> Path:
    """A folder with programs that run what is behind their own options."""
    programs = folder / "bin"
    programs.mkdir()
    for name in PROGRAMS:
        path = programs / name
        path.write_text('#!/bin/sh\nwhile [ "$#" -gt 0 ]; do case "$1" in */python*) exec "$@";; esac; shift; done\n')
        path.chmod(0o755)
    return programs


@pytest.fixture(scope="module")
def called(tmp_path_factory) -> list[list[str]]:
    """The arguments of every module that a run on a GPU starts, by an interpreter that only writes them down."""
    folder = tmp_path_factory.mktemp("called")
    python, calls = folder / "python", folder / "calls"
    note = f"for a; do printf '%s\\t' \"$a\"; done >>{calls}; echo >>{calls}; echo 3 passed; exit 0"
    python.write_text(
        f'#!/bin/sh\ncase "$*" in "-m pytest "*|"-m benchmarks."*|"-m aicr_ext profile "*) {note};; esac\n'
        f'exec {sys.executable} "$@"\n'
    )
    python.chmod(0o755)
    (folder / "run" / "results").mkdir(parents=True)
    environment = {"PATH": f"{stubs(folder)}:{os.environ['PATH']}"}
    options = ["--run", folder / "run", "--steps", ",".join(ON_A_GPU), "--seed", "11"]
    done = gpu_run(*options, folder, folder / "out", "10", python=python, **environment)
    assert done.returncode == 0, done.stdout + done.stderr
    assert statuses(folder / "out") == dict.fromkeys(ON_A_GPU, "ok")
    assert "memcheck: clean; racecheck: clean; synccheck: clean" in (folder / "out" / "summary.md").read_text()
    return [line.rstrip("\t").split("\t")[1:] for line in calls.read_text().splitlines()]


def test_the_order_is_that_of_value(called):
    names = [words[0] for words in called]
    assert names == [
        "pytest",  # on the GPU
        "benchmarks.cross_device",
        "benchmarks.speed",
        "benchmarks.ops",
        "benchmarks.predictions",
        "benchmarks.coder",
        *["aicr_ext"] * 2,  # profiles
        *["pytest"] * 3,  # below a sanitizer
        "benchmarks.ops",  # and compiled
        *["aicr_ext"] * 4,  # below ncu
        "benchmarks.coder",  # on the CPU
    ]
    assert all("cuda" in words for words in called if words[0] != "pytest" and words != called[-1])
    assert called[1][called[1].index("--seed") + 1] == "11"


def test_the_tests_below_a_sanitizer_are_there(called):
    """Collected without a GPU, where they would be skipped."""
    words = next(words[1:] for words in called if "-k" in words)
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "--collect-only", *words],
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    kernels = ["layer_norm2d", "depthwise_gram", "gelu_gate", "gated_depthwise_conv3x3"]
    attention = ["test_decoupled_attention.py", "test_decoupled_attention_backward.py"]
    for name in [*kernels, *attention, "test_integer_ops", "test_emulation_rans"]:
        assert name in done.stdout


def test_the_benchmarks_understand_how_they_are_called(called, monkeypatch):
    """With the real options of a run on a GPU; what would measure is replaced."""
    wanted = []
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "a GPU")
    monkeypatch.setattr(cross_device, "Place", lambda *a: a)
    monkeypatch.setattr(cross_device, "compare", lambda *a: wanted.append("compare") or {"latents that differ": 0})
    monkeypatch.setattr(speed, "on_device", lambda *a: wanted.append(("speed", *a)) or {"path": a[3]})
    monkeypatch.setattr(predictions, "measure_kernels", lambda *a: wanted.append("kernels") or [{"us": 1.0}])
    monkeypatch.setattr(coder, "stream_rows", lambda *a: wanted.append("streams") or {"workload": a[0]})
    monkeypatch.setattr(coder, "run", lambda *a: wanted.append("coder") or [{"workload": a[0]}])
    monkeypatch.setattr(coder, "photographed", lambda count: coder.drawn(np.ones(128), 10))
    monkeypatch.setattr(ops, "roofs", lambda *a: Roofs("cuda", {1: 1.0}, {"float32": 1.0, "bfloat16": 1.0}))
    monkeypatch.setattr(
        ops, "run", lambda case, dtype, *a: wanted.append((case.op, dtype, *a)) or [{"dtype": str(dtype)[6:]}]
    )
    for words in called:
        if words[0].startswith("benchmarks."):
            sys.modules[words[0]].main(words[1:])
    assert {"compare", "kernels", "streams", "coder"} <= {name for name in wanted if isinstance(name, str)}
    assert ("speed", "aicr-t", "bfloat16", 16, "aicr_ext", "cuda", (768, 512), 0.5) in wanted
    compiled = [name for name in wanted if name[-1] is True]
    assert compiled == [(f"{op}", torch.bfloat16, "cuda", 0.05, True) for _ in range(3) for op in BLOCKS]


def test_profiles_understand_how_they_are_called(called, monkeypatch):
    """With the real options; the GPU is not asked for."""
    seen = []
    for name in ("_codec", "_compare", "_repeat"):
        monkeypatch.setattr(cli_profile, name, lambda args, name=name: seen.append((name, args.what, args.device)))
    for words in called:
        if words[0] == "aicr_ext":
            parser = argparse.ArgumentParser()
            cli_profile.add_arguments(parser)
            assert cli_profile.run(parser.parse_args(words[2:]), lambda: None) == 0
    assert [name for name, *_ in seen] == ["_codec", "_compare", *["_repeat"] * 4]
    assert {what for name, what, _ in seen if name == "_repeat"} == {*BLOCKS, "gelu_gate"}
    assert {device for *_, device in seen} == {"cuda"}


@pytest.mark.parametrize("step", ["sanitize", "ncu"])
def test_programs_that_are_not_there_are_no_failure(step, tmp_path):
    options = ["--dry-run", "--run", tmp_path / "run", "--steps", step]
    done = gpu_run(*options, tmp_path, tmp_path / "out", "5")
    assert done.returncode == 0, done.stdout + done.stderr
    assert statuses(tmp_path / "out") == {step: "not here"}


def test_what_a_sanitizer_finds_is_a_failure(tmp_path):
    programs = stubs(tmp_path)
    (programs / "compute-sanitizer").write_text('#!/bin/sh\n[ "$2" != racecheck ] || exit 99\n')
    environment = {"PATH": f"{programs}:{os.environ['PATH']}"}
    options = ["--dry-run", "--run", tmp_path / "run", "--steps", "sanitize"]
    assert gpu_run(*options, tmp_path, tmp_path / "out", "5", **environment).returncode == 1
    assert statuses(tmp_path / "out") == {"sanitize": "failed"}
    assert "memcheck: clean; racecheck: ERRORS; synccheck: clean" in (tmp_path / "out" / "summary.md").read_text()


def test_counters_that_may_not_be_read_are_no_failure(tmp_path):
    programs = stubs(tmp_path)
    (programs / "ncu").write_text(
        '#!/bin/sh\nwhile [ "$1" != --log-file ]; do shift; done\necho "==ERROR== ERR_NVGPUCTRPERM" >"$2"\nexit 1\n'
    )
    environment = {"PATH": f"{programs}:{os.environ['PATH']}"}
    options = ["--dry-run", "--run", tmp_path / "run", "--steps", "ncu"]
    assert gpu_run(*options, tmp_path, tmp_path / "out", "5", **environment).returncode == 0
    assert statuses(tmp_path / "out") == {"ncu": "not here"}


def test_a_benchmark_that_was_stopped_counts_for_what_it_measured(tmp_path):
    python = interpreter(tmp_path, "benchmarks.ops", "exec sleep 100")
    options = ["--device", "cpu", "--run", tmp_path / "run", "--steps", "bench_ops"]
    done = gpu_run(*options, tmp_path, tmp_path / "out", "1.5", python=python, **fast_clock(tmp_path))
    assert done.returncode == 0, done.stdout + done.stderr
    assert statuses(tmp_path / "out") == {"bench_ops": "stopped, done in part"}


def test_what_is_delivered_keeps_the_limits(rehearsal):
    files = list((rehearsal / "out").rglob("*"))
    assert all(path.is_file() and path.parent == rehearsal / "out" for path in files)
    assert len(files) <= 8
    assert max(path.stat().st_size for path in files) <= 16 << 20
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
    done = gpu_run(*options, tmp_path, tmp_path / "out", "1.5", python=python, **fast_clock(tmp_path))
    assert done.returncode == 1, done.stdout + done.stderr
    assert statuses(tmp_path / "out") == {
        "gpu_tests": "stopped at its time limit",
        "tests": "skipped",
        "train": "skipped",
    }
    assert 45 <= summary(tmp_path / "out")["seconds_used"] < 90  # half is kept for the training


def test_without_training_nothing_has_failed_for_lack_of_one(tmp_path):
    python = interpreter(tmp_path, "pytest", "echo 1 passed; exit 0")
    options = ["--dry-run", "--no-train", "--run", tmp_path / "run", "--steps", "train,gpu_tests,tests"]
    done = gpu_run(*options, tmp_path, tmp_path / "out", "5", python=python)
    assert done.returncode == 0, done.stdout + done.stderr
    assert statuses(tmp_path / "out") == {"gpu_tests": "ok", "tests": "ok"}


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
        (["data", "out", "1", "--seed", "x"], "--seed must be a number, got x"),
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
