"""Networks as ONNX files for any size of picture, run by ONNX Runtime beside torch."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from training import TONED

import aicr_ext
from aicr_ext.codec.checkpoint import untrained
from aicr_ext.nn import GatedConvolutions, TransposedAttention
from aicr_ext.ops.kernels import has_kernel
from benchmarks.restormer import Block

pytest.importorskip("onnxscript")
onnxruntime = pytest.importorskip("onnxruntime")
pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")
ROWS, COLUMNS = (torch.export.Dim(name, min=2, max=4096) for name in ("rows", "columns"))


def exported(
    module: nn.Module, inputs: tuple[Tensor, ...], names: list[str], path: Path
) -> onnxruntime.InferenceSession:
    """The network as ONNX with the height and width of its first input free, loaded by ONNX Runtime."""
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)  # it asks for torchvision
    shapes = ({2: ROWS, 3: COLUMNS}, *[None] * (len(inputs) - 1))
    with torch.no_grad():
        program = torch.onnx.export(
            module, inputs, dynamo=True, dynamic_shapes=shapes, input_names=names, output_names=["out"], verbose=False
        )
    program.save(path)
    domains = {node.domain for node in program.model.graph}
    assert domains == {""}, "operators that a runtime does not know"
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def assert_same(session: onnxruntime.InferenceSession, module: nn.Module, *inputs: Tensor) -> None:
    named = {node.name: t.numpy() for node, t in zip(session.get_inputs(), inputs, strict=True)}
    with torch.no_grad():
        expected = module(*inputs)
    torch.testing.assert_close(torch.from_numpy(session.run(None, named)[0]), expected, rtol=1e-3, atol=1e-4)


def test_the_decoder(tmp_path):
    before = has_kernel("cpu")
    synthesis = untrained(replace(TONED, blocks=(1, 0, 0))).synthesis
    quality = torch.tensor([32])
    inputs = (torch.randn(1, TONED.components, 4, 6), quality)
    session = exported(synthesis, inputs, ["latent", "quality"], tmp_path / "decoder.onnx")
    for size in ((4, 6), (5, 3)):
        assert_same(session, synthesis, torch.randn(1, TONED.components, *size), torch.tensor([7]))
    assert has_kernel("cpu") == before


def test_an_accelerated_network(tmp_path):
    torch.manual_seed(0)
    block = Block(16, 2, 2.66).eval()
    aicr_ext.accelerate(block)
    session = exported(block, (torch.randn(1, 16, 8, 10),), ["x"], tmp_path / "block.onnx")
    for size in ((8, 10), (13, 7)):
        assert_same(session, block, torch.randn(1, 16, *size))


def test_modules_that_recompute(tmp_path):
    """With gradients enabled and none needed later: the graph has the operations all the same."""
    torch.manual_seed(0)
    parts = (TransposedAttention(8, 2, recompute=True), GatedConvolutions(8, 12, recompute=True))
    module = nn.Sequential(*parts).requires_grad_(False)
    session = exported(module.eval(), (torch.randn(1, 8, 8, 10),), ["x"], tmp_path / "parts.onnx")
    assert_same(session, module, torch.randn(1, 8, 5, 7))
