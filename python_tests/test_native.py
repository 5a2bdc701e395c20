"""Loading the native libraries, and what is said about those that cannot be loaded."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from aicr_ext import _native
from aicr_ext.errors import NativeLibraryError
from aicr_ext.ops.kernels import has_kernel, plain_torch


def test_status_names_every_library():
    status = _native.native_status()
    assert list(status) == ["_C", "_ops", "_cuda", "build"]
    for name in ("_C", "_ops", "_cuda"):
        assert set(status[name]) == {"loaded", "path", "reason"}
        assert status[name]["loaded"] == (status[name]["reason"] is None)
        if status[name]["loaded"]:
            assert Path(status[name]["path"]).exists()


@pytest.mark.skipif(not _native.native_status()["_C"]["loaded"], reason="the native module is not built")
def test_build_facts():
    build = _native.native_status()["build"]
    assert set(build) == {
        "version",
        "build_type",
        "sanitizers",
        "compiler",
        "torch_headers",
        "cuda_built",
        "cuda_version",
        "cuda_archs",
    }
    assert build["cuda_built"] == bool(build["cuda_archs"]) == bool(build["cuda_version"])
    assert int(build["torch_headers"].split(".")[0]) >= 2


def test_cuda_library_loads_beside_any_torch():
    """It carries its own CUDA run time and looks up torch's stream late: a CPU build of torch will do."""
    status = _native.native_status()
    if not status["build"].get("cuda_built"):
        pytest.skip("built without CUDA")
    assert status["_cuda"]["loaded"], status["_cuda"]["reason"]
    assert torch._C._dispatch_has_kernel_for_dispatch_key("aicr_ext::decoupled_attention", "CUDA")


def test_missing_coder_has_its_own_error(monkeypatch):
    monkeypatch.setattr(_native, "_C", None)
    monkeypatch.setattr(_native, "_c_library", _native._Library(None, "taken away for a test"))
    with pytest.raises(NativeLibraryError, match="taken away for a test"):
        _native.require_C()
    assert _native.native_status()["build"] == {}
    assert _native.cpu_features() == []


def test_unloadable_library_leaves_a_reason(tmp_path):
    assert "not built" in _native._load_ops("_ops", tmp_path).reason
    (tmp_path / "_ops.so").write_bytes(b"not a library")
    broken = _native._load_ops("_ops", tmp_path)
    assert not broken.loaded
    assert "_ops.so" in broken.reason


def test_operators_work_without_any_native_library():
    """A fresh interpreter in which no library can be found: the package imports and the reference runs."""
    program = """
import importlib.machinery, importlib.util, torch
find_spec = importlib.util.find_spec
importlib.util.find_spec = lambda name, *a: None if name == "aicr_ext._C" else find_spec(name, *a)
from aicr_ext import _native
from aicr_ext.ops import decoupled_attention, gelu_gate, layer_norm2d
from aicr_ext.errors import NativeLibraryError
from aicr_ext.ops.kernels import has_kernel, plain_torch
from aicr_ext.codec.rans import Encoder
status = _native.native_status()
assert not any(status[name]["loaded"] for name in ("_C", "_ops", "_cuda")), status
x = torch.randn(1, 2, 5, 5)
assert decoupled_attention(x, x, torch.randn(2, 1, 1, 3), torch.randn(2, 1, 3, 1)).shape == x.shape
assert layer_norm2d(x, torch.ones(2)).shape == x.shape
assert gelu_gate(x).shape == (1, 1, 5, 5)
try:
    Encoder()
except NativeLibraryError as error:
    print("ok:", error)
"""
    # The package folder holds no library in an editable install; elsewhere the test would find _ops next to
    # it.
    if (Path(_native.__file__).parent / "_ops.so").exists():
        pytest.skip("the libraries lie in the package folder")
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("ok: the entropy coder needs the native module")


@pytest.mark.skipif(not _native.HAS_OPS, reason="no operators here")
def test_plain_torch_may_leave_the_entropy_path_alone():
    assert has_kernel("cpu")
    with plain_torch(coding=False):
        assert (has_kernel("cpu"), has_kernel("cpu", coding=True)) == (False, True)
        with plain_torch():
            assert (has_kernel("cpu"), has_kernel("cpu", coding=True)) == (False, False)
        assert has_kernel("cpu", coding=True)
    assert has_kernel("cpu")
