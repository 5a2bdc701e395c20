"""Config files, single settings and the command line of training: what wins, and what is refused."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch
from training import log_of, short

from aicr_ext.cli import main
from aicr_ext.model.precision import has_bfloat16
from aicr_ext.train import TrainingOptions, loop, train
from aicr_ext.train.mixture import Mixture
from aicr_ext.train.options import CONFIGS, merge, parse_setting


def test_the_configs_are_known():
    by_damage = {"clean", "noise", "weather", "everything"}
    assert set(CONFIGS) == by_damage | {"quick", "paper", "tone", "latent", "gate", "feedback", "detail", "aicr-t"}


@pytest.mark.parametrize("config", sorted({*CONFIGS} - {"tone", "latent"}))
def test_every_config_trains(config, photographs, tmp_path, tiny, toned):
    model = (
        toned if config in ("aicr-t", "gate", "feedback", "detail") else tiny
    )  # they name a part that others have not
    changes = {"model": model, "stages": [[1.0, 4, 64]], "max_steps": 2, "report_every": 1, "precision": "float32"}
    train(TrainingOptions.from_config(photographs, tmp_path / "run", config, changes))
    assert [e["step"] for e in log_of(tmp_path / "run") if "loss" in e] == [1, 2]
    written = TrainingOptions.from_config(photographs, tmp_path / "run", tmp_path / "run" / "config.toml")
    assert written == TrainingOptions.from_config(photographs, tmp_path / "run", config, changes)


def test_what_the_configs_say():
    def of(config):
        return TrainingOptions.from_config("in", "out", config)

    assert of("clean") == of(None) == TrainingOptions("in", "out")
    assert of("quick").minutes == 2
    for config in ("noise", "weather", "everything", "paper"):
        assert of(config).mixture.clean == 0.2
    assert set(of("noise").mixture.kinds) == {"gaussian_noise"}
    assert set(of("weather").mixture.kinds) == {"haze", "rain", "snow"}
    assert len(of("everything").mixture.kinds) == len(of("aicr-t").mixture.kinds) == 9
    assert of("gate").only == ("analysis.gate", "analysis.detail.gate", "detail_prior")
    assert of("detail").only == ("analysis.detail.gate", "detail_prior")
    heads = ("analysis.gate.noise", "analysis.detail.gate.noise")
    assert of("feedback").only == ("analysis.feedback", "analysis.detail.feedback", *heads)
    with_knee = ("noise", "weather", "everything", "gate", "feedback", "detail", "aicr-t")
    assert {of(config).knee for config in with_knee} == {3.0}
    paper = of("paper")
    assert (paper.model, paper.optimiser, paper.learning_rate, paper.final_rate) == ("aicr-s", "adam", 1e-4, 1e-7)
    assert (paper.clip, paper.steps_per_batch, paper.qualities, paper.balance) == (0.1, 2, "pairs", False)
    batches = paper.max_steps // paper.steps_per_batch
    ends = [round(end * batches) for end, _, _ in paper.stages]
    assert ends == [250_000, 350_000, 400_000]
    assert [side for _, _, side in paper.stages] == [256, 320, 384]


def test_later_settings_win(tmp_path):
    file = tmp_path / "mine.toml"
    file.write_text("minutes = 5\nseed = 3\n[mixture]\nclean = 0.4\n[mixture.kinds]\nhaze = 0.5\n")
    options = TrainingOptions.from_config("in", "out", file, {"seed": 4, "mixture": {"kinds": {"rain": 0.1}}})
    assert (options.minutes, options.seed, options.warmup) == (5.0, 4, TrainingOptions.warmup)
    assert options.mixture == Mixture(clean=0.4, kinds={"haze": 0.5, "rain": 0.1})


def test_options_written_are_options_read(tmp_path):
    options = TrainingOptions(
        "in",
        "out",
        minutes=math.inf,
        start='a "b"\\c.safetensors',
        compile=True,
        mixture=Mixture(0.1, 0.2, {"haze": 0.25}, 0.5),
        stages=((0.5, 2, 64), (1.0, 1, 128)),
    )
    (tmp_path / "config.toml").write_text(options.to_toml())
    assert TrainingOptions.from_config("in", "out", tmp_path / "config.toml") == options


@pytest.mark.parametrize(
    "text, expected",
    [
        ("seed=3", {"seed": 3}),
        ("optimiser = muon", {"optimiser": "muon"}),
        ('optimiser="muon"', {"optimiser": "muon"}),
        ("mixture.kinds.haze=0.5", {"mixture": {"kinds": {"haze": 0.5}}}),
        ("stages=[[1.0, 2, 64]]", {"stages": [[1.0, 2, 64]]}),
        ("minutes=inf", {"minutes": math.inf}),
    ],
)
def test_single_settings(text, expected):
    assert parse_setting(text) == expected


@pytest.mark.parametrize("text", ["seed", "=3", "mixture.=3"])
def test_settings_without_key_or_value_are_refused(text):
    with pytest.raises(ValueError, match="expected KEY=VALUE"):
        parse_setting(text)


def test_tables_are_merged_key_by_key():
    assert merge({"a": {"b": 1, "c": 2}, "d": 3}, {"a": {"c": 4}, "d": 5}) == {"a": {"b": 1, "c": 4}, "d": 5}


@pytest.mark.parametrize(
    "line, message",
    [
        ("minuts = 3", "unknown key 'minuts'; known: model, start, minutes,"),
        ("data = 'elsewhere'", "unknown key 'data'"),
        ("minutes = 0", "minutes: expected a number above 0, got 0"),
        ("minutes = nan", "minutes: expected a number above 0, got nan"),
        ("minutes = 'long'", "minutes: expected a number above 0, got 'long'"),
        ("seed = 1.5", "seed: expected a whole number from 0 to 4.29497e\\+09, got 1.5"),
        ("decay = 2", "decay: expected a number from 0 to 1, got 2"),
        ("compile = 1", "compile: expected true or false, got 1"),
        ("optimiser = 'sgd'", "optimiser: expected one of adamw, muon, adam, got 'sgd'"),
        ("qualities = 'odd'", "qualities: expected one of uniform, pairs"),
        ("precision = 'half'", "precision: expected one of auto, bfloat16, float32"),
        ("model = 'aicr-x'", "unknown model 'aicr-x'; known models: aicr-l"),
        ("stages = []", "stages: expected at least one"),
        ("stages = [[1.0, 4]]", "number 1: expected .end, batch, side."),
        ("stages = [[0.5, 4, 64]]", "stages: expected the last one to end at 1, got 0.5"),
        ("stages = [[0.5, 4, 64], [0.4, 4, 64]]", "stages, number 2, end: expected a number above 0.5 to 1, got 0.4"),
        ("stages = [[1.0, 4, 100]]", "side: expected a multiple of 64, got 100"),
        ("mixture = 3", "mixture: expected a table, got 3"),
        ("mixture = {clear = 0.5}", "mixture: unknown key 'clear'; known: clean, alone, kinds, unclipped"),
        ("mixture = {clean = 2}", "mixture: clean: expected 0 to 1, got 2"),
        ("mixture = {kinds = {fog = 1}}", "mixture: kind: expected one of haze"),
        ("minutes = ", "not a TOML file"),
    ],
)
def test_bad_configs_name_file_key_and_what_is_accepted(line, message, tmp_path):
    file = tmp_path / "bad.toml"
    file.write_text(line)
    with pytest.raises((TypeError, ValueError), match=f"bad.toml: .*{message}"):
        TrainingOptions.from_config("in", "out", file)


def test_a_config_that_is_not_there():
    with pytest.raises(FileNotFoundError, match=r"no config 'nice': neither one of aicr-t, clean, .* nor a file"):
        TrainingOptions.from_config("in", "out", "nice")


def test_every_option_is_described():
    text = TrainingOptions.__doc__
    assert [f.name for f in dataclasses.fields(TrainingOptions) if f"        {f.name}: " not in text] == []


def test_the_command_trains(photographs, tmp_path, tiny, capsys):
    arguments = ["train", str(photographs), str(tmp_path / "run"), "--config", "quick", "--model", tiny, "--float32"]
    settings = ["--set", "stages=[[1.0, 4, 64]]", "--set", "mixture.clean=0.5", "--max-steps", "3", "--seed", "9"]
    assert main([*arguments, *settings]) == 0
    printed = capsys.readouterr()
    assert printed.out == ""
    assert "aicr: weights in " in printed.err
    written = TrainingOptions.from_config("in", "out", tmp_path / "run" / "config.toml")
    assert (written.max_steps, written.seed, written.mixture.clean, written.minutes) == (3, 9, 0.5, 2.0)
    assert written.precision == "float32"
    assert main([*arguments, *settings, "--quiet"]) == 0  # nothing is left to do
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    "arguments, code, message",
    [
        (["--config", "nice"], 2, "no config 'nice'"),
        (["--set", "minuts=3"], 2, "unknown key 'minuts'"),
        (["--set", "minutes"], 2, "--set: expected KEY=VALUE, got 'minutes'"),
        (["--minutes", "-1"], 2, "minutes: expected a number above 0"),
        (["--optimiser", "sgd"], 2, "optimiser: expected one of adamw"),
        (["--device", "gpu"], 3, "cannot use device 'gpu'"),
        (["--start", "nothing.safetensors", "--set", "stages=[[1.0, 4, 64]]"], 1, "nothing.safetensors"),
        ([], 1, "no picture of at least 256 pixels a side below"),
    ],
)
def test_wrong_use_of_the_command(arguments, code, message, photographs, tmp_path, capsys):
    assert main(["train", str(photographs), str(tmp_path / "run"), *arguments]) == code
    assert message in capsys.readouterr().err
    assert not (tmp_path / "run" / "state.pt").exists()


def test_start_must_fit_the_model(photographs, tmp_path, tiny):
    with pytest.raises(ValueError, match="start: expected weights of tiny, got those of aicr-t"):
        train(short(photographs, tmp_path / "run", start="aicr-t"))


@pytest.mark.parametrize(
    "capabilities, expected",
    [({}, False), ({"avx512_bf16": True}, True), ({"amx_bf16": True, "avx512_bf16": False}, True)],
)
def test_bfloat16_where_the_processor_has_it(capabilities, expected, photographs, tmp_path, tiny, monkeypatch):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities, raising=False)
    assert has_bfloat16(torch.device("cpu")) is expected
    autocast, seen = torch.autocast, []

    def note(device, dtype=None, enabled=True, **rest):
        seen.append(enabled)
        return autocast(device, dtype, enabled, **rest)

    monkeypatch.setattr(loop.torch, "autocast", note)
    train(short(photographs, tmp_path / "run", precision="auto", max_steps=1, validation=0))
    assert seen[0] is expected
    assert log_of(tmp_path / "run")[0]["run"]["precision"] == ("bfloat16" if expected else "float32")
