"""From ``--codecs nlm+avif jpeg+package.module:function`` to codecs."""

from __future__ import annotations

import functools
import hashlib
import importlib
import importlib.util
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from .cascade import Cascade
from .codecs import PILLOW, FileCodec, ModelCodec, PillowCodec
from .restorers import RESTORERS, Restorer
from .text import check_options, parse_call

__all__ = ["OURS", "build_codecs", "uses_models"]

#: Stands for every model of the run.
OURS = "aicr"


def uses_models(texts: Sequence[str], labels: Sequence[str]) -> bool:
    """Whether any of the texts names our codec."""
    return any(_model(part)[0] in (OURS, *labels) for text in texts for part in text.split("+"))


def _model(part: str) -> tuple[str, str]:
    """What a part names if it names a model, and its options with their colon."""
    name, colon, options = part.partition(":")
    return (name, colon + options) if "=" in options else (part, "")


def build_codecs(
    texts: Sequence[str],
    models: Mapping[str, ModelCodec] | None = None,
    qualities: Mapping[str, Sequence[float]] | None = None,
) -> list[Cascade]:
    """The codecs that texts name, each with its restorers.

    A text is a codec with any number of restorers before and after it, joined by ``+``. A codec is ``aicr`` (once for
    each model), a model's label, ``jpeg``, ``webp``, ``avif``, or a plug-in; a restorer is ``nlm`` or a plug-in. A
    plug-in is ``package.module:object`` or ``file.py:object``; with ``encode`` and ``decode`` it is a codec, any other
    callable is a restorer. A class is called first. Options follow a colon: ``nlm:sigma=25``, ``avif:speed=4``,
    ``aicr:effort=10``.

    Args:
        texts: such as ``["aicr", "jpeg", "nlm+avif"]``.
        models: our codecs by label.
        qualities: other qualities than a codec's own, by the codec's name without restorers.

    Raises:
        ValueError: no codec or several in a text, an unknown name or option, the same text twice, a plug-in that
            cannot be loaded, or qualities for a codec that is not there.
    """
    models, qualities = dict(models or {}), dict(qualities or {})
    for label in models:
        if label in (OURS, *PILLOW, *RESTORERS):
            raise ValueError(f"model label {label!r} is the name of a codec or restorer; choose another")
    # One restorer object for all cascades, so that its result is shared by the codecs behind it.
    part = functools.cache(lambda text: _named_part(text, models))
    found: dict[str, Cascade] = {}
    used = set()
    for text in texts:
        names = [_model(name) for name in text.split("+")]
        every = any(name == OURS for name, _ in names)
        if every and not models:
            raise ValueError(f"codec {text!r}: no model is given")
        for label in models if every else [OURS]:
            of_label = [(label if name == OURS else name) + options for name, options in names]
            cascade, name = _cascade(text, of_label, part, qualities)
            used.add(name)
            if cascade.name in found:
                raise ValueError(f"codec {cascade.name} is asked for twice")
            found[cascade.name] = cascade
    if strange := sorted(qualities.keys() - used):
        raise ValueError(
            f"qualities for {', '.join(strange)}, which is not measured; codecs: {', '.join(sorted(used))}"
        )
    return list(found.values())


def _cascade(
    text: str,
    names: Sequence[str],
    part: Callable[[str], Restorer | tuple[str, FileCodec, str]],
    qualities: Mapping[str, Sequence[float]],
) -> tuple[Cascade, str]:
    """The cascade of these parts, and the name of the codec in it."""
    parts = [part(name) for name in names]
    at = [i for i, p in enumerate(parts) if not isinstance(p, Restorer)]
    if len(at) != 1:
        raise ValueError(f"codec {text!r}: expected one codec, with restorers before or after it, got {len(at)} codecs")
    (i,) = at
    name, codec, identity = parts[i]
    cascade = Cascade(
        codec, name=name, identity=identity, before=parts[:i], after=parts[i + 1 :], qualities=qualities.get(name)
    )
    return cascade, name


def _named_part(text: str, models: Mapping[str, ModelCodec]) -> Restorer | tuple[str, FileCodec, str]:
    try:
        return _part(text, models)
    except (TypeError, ValueError) as error:
        raise ValueError(f"codec {text!r}: {error}") from error


def _part(text: str, models: Mapping[str, ModelCodec]) -> Restorer | tuple[str, FileCodec, str]:
    """A restorer, or a codec with its name and identity."""
    if text in models:
        return text, models[text], models[text].identity
    name, options = parse_call(text)
    if name in models:
        check_options(options, ("effort",))
        codec = models[name].with_effort(options["effort"])
        return text, codec, codec.identity
    if name in PILLOW:
        codec = PillowCodec(name, **options)
        return text, codec, codec.identity
    if name in RESTORERS:
        function, accepted, begin = RESTORERS[name]
        check_options(options, accepted)
        return Restorer(text, functools.partial(function, **options), f"{begin()}{_listed(options)}")
    if ":" not in name:
        known = ", ".join([OURS, *models, *PILLOW, *RESTORERS])
        raise ValueError(f"expected {known}, MODULE:OBJECT or FILE.py:OBJECT")
    thing, source = _load(name)
    short, listed = Path(name).name, _listed(options)  # no folders of this machine in results
    text = text.replace(name, short, 1)
    identity = f"{short} {source}{listed}"
    if isinstance(thing, type):
        thing = thing(**options)
        options = {}
    identity = getattr(thing, "identity", identity)
    if isinstance(thing, FileCodec):
        if options:
            raise ValueError(f"{short} is no class, so it takes no options")
        return text, thing, identity
    if callable(thing):
        return Restorer(text, functools.partial(thing, **options), identity)
    raise ValueError(f"{short} is neither a codec (qualities, encode, decode) nor callable")


def _load(name: str) -> tuple[object, str]:
    """The object and a hash of the file it comes from."""
    place, _, attribute = name.rpartition(":")
    try:
        if place.endswith(".py"):
            spec = importlib.util.spec_from_file_location(Path(place).stem, place)
            module = importlib.util.module_from_spec(spec)
            spec.loader.exec_module(module)
        else:
            module = importlib.import_module(place)
    except Exception as error:  # a plug-in's code raises whatever it likes
        raise ValueError(f"cannot load {place}: {type(error).__name__}: {error}") from error
    if not hasattr(module, attribute):
        raise ValueError(f"{place} has no {attribute}")
    file = getattr(module, "__file__", None)
    digest = hashlib.sha256(Path(file).read_bytes()).hexdigest()[:16] if file else "built in"
    return getattr(module, attribute), digest


def _listed(options: Mapping[str, object]) -> str:
    return "".join(f", {key}={value}" for key, value in options.items())
