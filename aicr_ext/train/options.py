"""What a training run is made of, from defaults, a TOML file and single settings, with everything checked."""

from __future__ import annotations

import dataclasses
import json
import math
import tomllib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from aicr_ext.model.config import get_config
from aicr_ext.train.mixture import Mixture
from aicr_ext.train.optimisers import OPTIMISERS
from aicr_ext.train.restoration import OBJECTIVES

__all__ = ["CONFIGS", "TrainingOptions", "merge", "parse_setting", "read_config"]

_FOLDER = Path(__file__).parent / "configs"

#: Names of the config files in this package.
CONFIGS = tuple(sorted(path.stem for path in _FOLDER.glob("*.toml")))

QUALITIES = ("uniform", "pairs")
PRECISIONS = ("auto", "bfloat16", "float32")


@dataclass
class TrainingOptions:
    """What a run is made of. Every field but ``data`` and ``out`` may stand in a config file.

    Attributes:
        data: folder of photographs.
        out: folder for the log, the weights and the state to resume from.
        model: configuration name.
        start: shipped model or weight file to begin from instead of drawn weights.
        minutes: time box; ``inf`` for none.
        max_steps: optimiser steps that end the run even if time is left. The schedule follows whichever of the two
            is nearer to its end.
        stages: (fraction of the run at which it ends, batch, patch side) in order; sides are multiples of 64.
        steps_per_batch: optimiser steps on every batch, each with qualities of its own.
        qualities: ``"uniform"`` over 0..63, or ``"pairs"``: {0, 21} and {42, 63} in turn for half of the run, as
            published, then uniform.
        mixture: how much of the input is degraded, and by what; the target is always the clean patch.
        objective: ``"rate_distortion"`` of the whole network, or ``"tone"`` or ``"latent"``, which teach the analysis
            alone (:mod:`aicr_ext.train.restoration`); ``latent`` needs ``start``.
        freeze: parts of the network that stay as they are: beginnings of parameter names, ``"analysis.tone"``.
        only: parts likewise, of which everything else stays as it is; empty: all are trained.
        balance: multiply the loss of a picture by 16 / sqrt(lambda), so that every quality pulls about equally.
        guidance: weight of the guidance branch, 0 for none; 3.0 as published (ECCV 2022).
        guidance_detach: whether the clean branch is a fixed aim; the published one receives gradients too.
        loss_cap: steps with a loss above it are skipped; ``inf`` for none.
        knee: loss of a picture beyond which it counts by its logarithm; ``inf`` for none.
        optimiser: ``"adamw"``, ``"muon"`` or ``"adam"``.
        learning_rate: its peak; one cosine leads from it to ``final_rate``.
        final_rate: the learning rate at the end of the run.
        warmup: optimiser steps up to the peak.
        clip: limit of the gradient norm.
        decay: of the moving average of the weights; 0 for none.
        seed: of everything random.
        validation: photographs kept out of training; the averaged weights are tried on them at every checkpoint.
        device: ``"cpu"``, ``"cuda"`` or ``"cuda:N"``.
        precision: of the convolutions: ``"bfloat16"``, ``"float32"``, or ``"auto"``: bfloat16 where the device has
            instructions for it.
        compile: whether ``torch.compile`` compiles the network.
        workers: processes that make batches ahead; 0 makes them in the loop.
        report_every: steps between log lines.
        save_every: minutes between checkpoints.

    Raises:
        TypeError, ValueError: a value that is not accepted; the message begins with the name of the field.
    """

    data: str
    out: str
    model: str = "aicr-t"
    start: str | None = None
    minutes: float = 60.0
    max_steps: int = 10**9
    stages: tuple[tuple[float, int, int], ...] = ((0.5, 8, 128), (0.85, 6, 192), (1.0, 4, 256))
    steps_per_batch: int = 1
    qualities: str = "uniform"
    mixture: Mixture = field(default_factory=Mixture)
    objective: str = "rate_distortion"
    freeze: tuple[str, ...] = ()
    only: tuple[str, ...] = ()
    balance: bool = True
    guidance: float = 0.0
    guidance_detach: bool = True
    loss_cap: float = math.inf
    knee: float = math.inf
    optimiser: str = "adamw"
    learning_rate: float = 8e-4
    final_rate: float = 0.0
    warmup: int = 200
    clip: float = 2.0
    decay: float = 0.999
    seed: int = 0
    validation: int = 16
    device: str = "cpu"
    precision: str = "auto"
    compile: bool = False
    workers: int = 0
    report_every: int = 50
    save_every: float = 5.0

    def __post_init__(self) -> None:
        self.data, self.out = str(self.data), str(self.out)
        for name, accepted in _ACCEPTED.items():
            setattr(self, name, accepted.checked(name, getattr(self, name)))
        if self.start is not None:
            self.start = _Text().checked("start", str(self.start))
        get_config(self.model)
        self.stages = _checked_stages(self.stages)
        self.mixture = _checked_mixture(self.mixture)

    @classmethod
    def from_config(
        cls,
        data: str | Path,
        out: str | Path,
        config: str | Path | None = None,
        settings: Mapping[str, object] | None = None,
    ) -> TrainingOptions:
        """Options from the defaults, then a config, then ``settings`` (nested like a config); the later wins.

        Args:
            data, out: as the fields.
            config: one of :data:`CONFIGS`, or the path of a TOML file.
            settings: field names to values; ``mixture`` and ``mixture.kinds`` are merged key by key.

        Raises:
            FileNotFoundError: no such config.
            TypeError, ValueError: an unknown key or a value that is not accepted; the message names file and key.
        """
        values: dict[str, object] = {}
        if config is not None:
            values = read_config(config)
            try:
                cls(str(data), str(out), **_known(values))
            except (TypeError, ValueError) as error:
                raise type(error)(f"{config}: {error}") from None
        return cls(str(data), str(out), **_known(merge(values, settings or {})))

    def to_toml(self) -> str:
        """A config file of all fields but ``data`` and ``out``, which it mentions in a comment."""
        lines = [f"# aicr train {json.dumps(self.data)} {json.dumps(self.out)} --config THIS_FILE"]
        for name, value in self.as_dict().items():
            if name != "mixture" and value is not None:
                lines.append(f"{name} = {_toml(value)}")
        mixture = self.as_dict()["mixture"]
        kinds = mixture.pop("kinds")
        lines += ["", "[mixture]", *(f"{name} = {_toml(value)}" for name, value in mixture.items())]
        lines += ["", "[mixture.kinds]", *(f"{name} = {_toml(value)}" for name, value in kinds.items())]
        return "\n".join(lines) + "\n"

    def as_dict(self) -> dict[str, object]:
        """All fields but ``data`` and ``out`` as plain values."""
        values = {f.name: getattr(self, f.name) for f in dataclasses.fields(self) if f.name not in ("data", "out")}
        values["stages"] = [list(stage) for stage in self.stages]
        values |= {"freeze": list(self.freeze), "only": list(self.only)}
        values["mixture"] = {f.name: getattr(self.mixture, f.name) for f in dataclasses.fields(self.mixture)}
        values["mixture"]["kinds"] = dict(self.mixture.kinds)
        return values


class _Number(NamedTuple):
    """Numbers in [low, high], or in (low, high] if ``above``."""

    low: float
    high: float = math.inf
    whole: bool = False
    above: bool = False

    def checked(self, name: str, value: object) -> float:
        wanted = f"{'a whole number' if self.whole else 'a number'} {self._range()}"
        if isinstance(value, bool) or not isinstance(value, int if self.whole else (int, float)):
            raise TypeError(f"{name}: expected {wanted}, got {value!r}")
        if not (self.low < value if self.above else self.low <= value) or not value <= self.high:
            raise ValueError(f"{name}: expected {wanted}, got {value!r}")
        return value if self.whole else float(value)

    def _range(self) -> str:
        if math.isinf(self.high):
            return f"{'above' if self.above else 'of at least'} {self.low:g}"
        return f"{'above' if self.above else 'from'} {self.low:g} to {self.high:g}"


class _Text(NamedTuple):
    """One of some words, or any text."""

    words: Collection[str] = ()

    def checked(self, name: str, value: object) -> str:
        if not isinstance(value, str) or not value:
            raise TypeError(f"{name}: expected a text, got {value!r}")
        if self.words and value not in self.words:
            raise ValueError(f"{name}: expected one of {', '.join(self.words)}, got {value!r}")
        return value


class _Texts(NamedTuple):
    """A list of texts, which may be empty."""

    def checked(self, name: str, value: object) -> tuple[str, ...]:
        if not isinstance(value, Sequence) or isinstance(value, str):
            raise TypeError(f"{name}: expected a list of texts, got {value!r}")
        return tuple(_Text().checked(name, text) for text in value)


class _Flag(NamedTuple):
    """True or false."""

    def checked(self, name: str, value: object) -> bool:
        if not isinstance(value, bool):
            raise TypeError(f"{name}: expected true or false, got {value!r}")
        return value


_ACCEPTED = {
    "model": _Text(),
    "minutes": _Number(0, above=True),
    "max_steps": _Number(1, whole=True),
    "steps_per_batch": _Number(1, 16, whole=True),
    "qualities": _Text(QUALITIES),
    "objective": _Text(OBJECTIVES),
    "freeze": _Texts(),
    "only": _Texts(),
    "balance": _Flag(),
    "guidance": _Number(0, 1000),
    "guidance_detach": _Flag(),
    "loss_cap": _Number(0, above=True),
    "knee": _Number(0, above=True),
    "optimiser": _Text(OPTIMISERS),
    "learning_rate": _Number(0, 1, above=True),
    "final_rate": _Number(0, 1),
    "warmup": _Number(1, whole=True),
    "clip": _Number(0, above=True),
    "decay": _Number(0, 1),
    "seed": _Number(0, 2**32 - 1, whole=True),
    "validation": _Number(0, whole=True),
    "device": _Text(),
    "precision": _Text(PRECISIONS),
    "compile": _Flag(),
    "workers": _Number(0, 256, whole=True),
    "report_every": _Number(1, whole=True),
    "save_every": _Number(0, above=True),
}


def _checked_stages(stages: object) -> tuple[tuple[float, int, int], ...]:
    if not isinstance(stages, Sequence) or isinstance(stages, str) or not stages:
        raise TypeError(f"stages: expected at least one [end, batch, side], got {stages!r}")
    checked, before = [], 0.0
    for number, stage in enumerate(stages, 1):
        name = f"stages, number {number}"
        if not isinstance(stage, Sequence) or isinstance(stage, str) or len(stage) != 3:
            raise TypeError(f"{name}: expected [end, batch, side], got {stage!r}")
        end = _Number(before, 1, above=True).checked(f"{name}, end", stage[0])
        batch = _Number(1, whole=True).checked(f"{name}, batch", stage[1])
        side = _Number(64, whole=True).checked(f"{name}, side", stage[2])
        if side % 64:
            raise ValueError(f"{name}, side: expected a multiple of 64, got {side}")
        checked.append((end, batch, side))
        before = end
    if before != 1:
        raise ValueError(f"stages: expected the last one to end at 1, got {before:g}")
    return tuple(checked)


def _checked_mixture(value: object) -> Mixture:
    if isinstance(value, Mixture):
        return value
    if not isinstance(value, Mapping):
        raise TypeError(f"mixture: expected a table, got {value!r}")
    names = [f.name for f in dataclasses.fields(Mixture)]
    for key in value:
        if key not in names:
            raise ValueError(f"mixture: unknown key {key!r}; known: {', '.join(names)}")
    try:
        return Mixture(**value)
    except (TypeError, ValueError) as error:
        raise type(error)(f"mixture: {error}") from None


def _known(values: Mapping[str, object]) -> Mapping[str, object]:
    names = [f.name for f in dataclasses.fields(TrainingOptions) if f.name not in ("data", "out")]
    for key in values:
        if key not in names:
            raise ValueError(f"unknown key {key!r}; known: {', '.join(names)}")
    return values


def read_config(config: str | Path) -> dict[str, object]:
    """The tables of a config by its name or path, not yet checked.

    Raises:
        FileNotFoundError: neither a name in :data:`CONFIGS` nor a file.
        ValueError: the file is not TOML.
    """
    path = _FOLDER / f"{config}.toml" if str(config) in CONFIGS else Path(config)
    if not path.is_file():
        raise FileNotFoundError(f"no config {str(config)!r}: neither one of {', '.join(CONFIGS)} nor a file")
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{config}: not a TOML file: {error}") from None


def parse_setting(text: str) -> dict[str, object]:
    """``"mixture.clean=0.3"`` as {"mixture": {"clean": 0.3}}; a value that is not TOML is taken as text.

    Raises:
        ValueError: no ``=`` or no key.
    """
    key, sign, value = text.partition("=")
    keys = key.strip().split(".")
    if not sign or not all(keys):
        raise ValueError(f"expected KEY=VALUE, got {text!r}")
    try:
        parsed: object = tomllib.loads(f"value = {value}")["value"]
    except tomllib.TOMLDecodeError:
        parsed = value.strip()
    for name in reversed(keys):
        parsed = {name: parsed}
    return parsed


def merge(values: Mapping[str, object], other: Mapping[str, object]) -> dict[str, object]:
    """``values`` with those of ``other`` in their place; tables are merged key by key."""
    merged = dict(values)
    for key, value in other.items():
        old = merged.get(key)
        merged[key] = merge(old, value) if isinstance(old, Mapping) and isinstance(value, Mapping) else value
    return merged


def _toml(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False)
    if isinstance(value, list):
        return f"[{', '.join(map(_toml, value))}]"
    return repr(value)
