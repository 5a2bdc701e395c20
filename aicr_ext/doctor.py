"""What is installed, what loads and what does not: the report of ``aicr doctor``.

Every part is looked at on its own, so that a broken one is named instead of hiding the rest.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.metadata
import os
import platform
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

__all__ = ["as_text", "examine", "examine_cpu"]

LIBRARIES = ("torch", "numpy", "PIL", "safetensors", "tqdm")
_PACKAGE = Path(__file__).parent


def examine() -> dict[str, Any]:
    """Look at everything the codec needs; never raises.

    Returns a dict that ``json.dumps`` takes. ``healthy`` is true when a small picture was compressed and
    decoded here and nothing needed for that is missing; ``problems`` lists what is wrong, one line each.
    """
    problems: list[str] = []

    def part(name: str, look: Callable[[], Any]) -> Any:
        try:
            return look()
        except Exception as error:  # a broken library raises whatever it likes
            text = " ".join(f"{type(error).__name__} {error}".split())
            problems.append(f"{name}: {text}")
            return None

    report = {
        "package": part("package", _package),
        "python": f"{platform.python_version()} ({platform.python_implementation()}, {platform.machine()})",
        "system": platform.platform(),
        "libraries": {name: part(name, lambda name=name: _library_version(name)) for name in LIBRARIES},
        "native": part("native libraries", _native),
        "cpu": part("CPU", examine_cpu),
        "coder_isa": part("entropy coder", _coder_isa),
        "gpus": part("GPU", _gpus),
        "weights": part("weights", _weights),
        "self_test": part("self test", _self_test),
    }
    for file in report["weights"] or []:
        file["weight_hash"] = part(f"weights {file['file']}", lambda file=file: _weight_hash(file["file"]))
    for name, state in (report["native"] or {}).items():
        # Only the coder has no replacement in Python; without _cuda the CPU does the work.
        if name == "_C" and not state["loaded"]:
            problems.append(f"native library {name} is not loaded: {state['reason']}")
    if report["weights"] == []:
        problems.append("weights: none in the package")
    return {"healthy": not problems, "problems": problems, **report}


def as_text(report: dict[str, Any]) -> str:
    """The report of :func:`examine` as lines to read."""
    package = report["package"] or {"version": "unknown", "path": str(_PACKAGE)}
    lines = [
        f"aicr_ext    {package['version']}, in {package['path']}",
        f"Python      {report['python']}",
        f"system      {report['system']}",
    ]
    lines += [f"{name:<11} {version or 'NOT USABLE'}" for name, version in report["libraries"].items()]
    lines.append("native libraries")
    for name, state in (report["native"] or {}).items():
        if name == "build":
            text = ", ".join(f"{key} {value}" for key, value in state.items() if value != "") or "unknown"
        else:
            text = "loaded" if state["loaded"] else f"not loaded: {state['reason']}"
        lines.append(f"  {name:<9} {text}")
    if cpu := report["cpu"]:
        lines.append(f"CPU         {cpu['model']}, {cpu['cores']} cores, {cpu['threads']} threads")
        lines.append(f"  features  {', '.join(cpu['features']) or 'unknown'}")
    lines.append(f"coder       {report['coder_isa'] or 'NOT USABLE'}")
    lines += [f"GPU         {gpu}" for gpu in report["gpus"] or ["none"]]
    for file in report["weights"] or []:
        known = f"weights {file['weight_hash'] or 'NOT USABLE'}, sha256 {file['sha256'][:16]}"
        lines.append(f"weights     {file['file']}: {file['bytes']:,} bytes, {known}")
    lines.append(f"self test   {report['self_test'] or 'FAILED'}")
    lines += ["", "everything works" if report["healthy"] else "problems"]
    lines += [f"  {problem}" for problem in report["problems"]]
    return "\n".join(lines)


def _package() -> dict[str, str]:
    from . import __version__

    return {"version": __version__, "path": str(_PACKAGE)}


def _library_version(name: str) -> str:
    return str(importlib.import_module(name).__version__)


def _native() -> dict[str, Any]:
    from . import _native

    return _native.native_status()


def examine_cpu() -> dict[str, Any]:
    """Model, cores, threads torch uses, and instruction sets of the processor."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text(errors="replace").splitlines() if cpuinfo.exists() else []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    cpu = {"model": (models or [platform.processor() or platform.machine()])[0], "cores": os.cpu_count()}
    import torch

    from . import _native

    return cpu | {"threads": torch.get_num_threads(), "features": list(_native.cpu_features())}


def _coder_isa() -> str:
    from . import _native

    return _native.coder_isa()


def _gpus() -> list[str]:
    import torch

    if not torch.cuda.is_available():
        return []
    gpus = []
    for index in range(torch.cuda.device_count()):
        facts = torch.cuda.get_device_properties(index)
        memory = f"{facts.total_memory / 2**30:.0f} GiB"
        gpus.append(f"{facts.name}, compute {facts.major}.{facts.minor}, {memory}")
    return gpus


def _weights() -> list[dict[str, Any]]:
    files = sorted((_PACKAGE / "weights").glob("*.safetensors"))
    weights = []
    for file in files:
        data = file.read_bytes()
        weights.append(
            {
                "file": file.name,
                "bytes": len(data),
                "sha256": hashlib.sha256(data).hexdigest(),
                "weight_hash": None,
            }
        )
    return weights


def _weight_hash(name: str) -> str:
    """The hash of weights and tables that files written with them carry, as ``aicr info`` prints it."""
    import aicr_ext

    return aicr_ext.Codec(_PACKAGE / "weights" / name).weight_hash[:4].hex()


def _self_test() -> str:
    import torch

    import aicr_ext

    height, width = 48, 64
    ramp = torch.linspace(0, 1, height)[:, None] * torch.linspace(0, 1, width)
    image = torch.stack([ramp, 1 - ramp, 0.5 * ramp])
    started = time.perf_counter()
    data = aicr_ext.compress(image)
    decoded = aicr_ext.decompress(data)
    if decoded.shape != image.shape:
        raise RuntimeError(f"decoded shape {tuple(decoded.shape)}, expected {tuple(image.shape)}")
    seconds = time.perf_counter() - started
    return f"{width}x{height} picture to {len(data)} bytes and back in {seconds:.2f} s"
