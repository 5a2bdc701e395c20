"""The operators of a coding step: native results equal the definitions, and the definitions mean what they say."""

from __future__ import annotations

import math

import pytest
import torch
from latent_cases import SHAPES, calls_of, cases, drawn, moved
from op_cases import assert_same_bits, with_threads
from training import TONED

from aicr_ext import _native
from aicr_ext.codec.checkpoint import untrained
from aicr_ext.codec.priors import IntegerPriors
from aicr_ext.model import entropy
from aicr_ext.model.aicr import checkerboard
from aicr_ext.ops import latent, latent_reference
from aicr_ext.ops.kernels import plain_torch
from aicr_ext.ops.latent import latent_accept, latent_dequantise, latent_quantise, latent_scale_index

needs_native = pytest.mark.skipif(not _native.HAS_OPS, reason="native operators not built")


def same(first, second):
    """Whether results of an operator, a tensor or several, are equal, dtypes and shapes included."""
    both = [(each,) if isinstance(each, torch.Tensor) else each for each in (first, second)]
    return all(a.dtype == b.dtype and torch.equal(a, b) for a, b in zip(*both, strict=True))


@needs_native
def test_kernels_equal_their_definitions():
    for name, arguments in cases():
        expected = getattr(latent_reference, f"{name}_reference")(*arguments)
        assert same(getattr(torch.ops.aicr_ext, name)(*arguments), expected), (name, arguments[0].shape)


@needs_native
def test_threads_change_nothing():
    for name, arguments in calls_of(drawn((2, 40, 30, 96), 288)):
        operator = getattr(torch.ops.aicr_ext, name)
        assert_same_bits(with_threads(lambda operator=operator, arguments=arguments: operator(*arguments)))


@needs_native
@pytest.mark.parametrize("name, arguments", list(calls_of(drawn(*SHAPES[1]))))
def test_the_compiler_knows_them(name, arguments):
    torch.library.opcheck(getattr(torch.ops.aicr_ext, name), arguments)


@needs_native
def test_views():
    given = drawn(*SHAPES[0])
    for name in given:
        for places in (1, 3):
            for (op, arguments), (_, plain) in zip(calls_of(moved(given, name, places)), calls_of(given), strict=True):
                function = getattr(torch.ops.aicr_ext, op)
                assert same(function(*arguments), function(*plain)), (op, name)
    across = {name: t.transpose(1, 2).contiguous().transpose(1, 2) if t.dim() == 4 else t for name, t in given.items()}
    for (op, arguments), (_, plain) in zip(calls_of(across), calls_of(given), strict=True):
        assert same(getattr(torch.ops.aicr_ext, op)(*arguments), getattr(torch.ops.aicr_ext, op)(*plain)), op


@pytest.mark.gpu
@pytest.mark.skipif(not (torch.cuda.is_available() and _native.HAS_CUDA_OPS), reason="no GPU")
def test_cuda_equals_the_cpu():
    for name, arguments in cases():
        result = getattr(torch.ops.aicr_ext, name)(*[a.cuda() if isinstance(a, torch.Tensor) else a for a in arguments])
        result = result.cpu() if isinstance(result, torch.Tensor) else [part.cpu() for part in result]
        assert same(result, getattr(torch.ops.aicr_ext, name)(*arguments)), name


def test_levels_are_the_nearest_of_128():
    levels = torch.linspace(entropy.LOG_SCALE_MIN, entropy.LOG_SCALE_MAX, 128, dtype=torch.float64)
    every = torch.arange(-32768, 32768)
    distance = (every[:, None] * 2.0**-latent_reference.LOG_EXPONENT - levels).abs()
    parameters = torch.zeros(1, 1, 2**15, 4, dtype=torch.int16)
    parameters[..., :2] = every.view(1, 1, -1, 2)
    ours = torch.stack([latent_scale_index(parameters, 2, second) for second in (False, True)], 1)
    ours[1::2] = ours[1::2].flip(1)  # where the first step takes the upper half
    ours = ours.flatten().long()
    excess = distance.gather(1, ours[:, None])[:, 0] - distance.amin(1)
    assert excess.max() < 1.5 * 2.0**-latent_reference.LOG_EXPONENT  # the grid of log scales is that coarse
    assert torch.equal(ours, ours.cummax(0).values)
    assert torch.equal(ours, latent_reference.scale_level(every).long())


def test_a_step_by_hand():
    """Two places side by side, two channels: the first step takes channel 0 of the left one, 1 of the right one."""
    steps, logs, means = [4096, 2048, 100, 2048], [0, -4521, 8518, 0], [48, 40, 80, -24]
    parameters = torch.tensor([[[steps[:2] + logs[:2] + means[:2], steps[2:] + logs[2:] + means[2:]]]]).short()
    exponent = torch.tensor([5, 4]).int()
    y = torch.tensor([[[[9.0, 7.0], [-2.0, -4.0]]]])
    # 9 / 2 - 1.5 = 3; -4 / 1 + 1.5 = -2.5, which ties to -2
    symbols, index = latent_quantise(y, parameters, exponent, parameters)
    assert symbols.tolist() == [3, -2]
    assert index.tolist() == [44, 44]
    # 7 - 2.5 is not coded at level 0; -2 / .5, the least step, - 2.5 = -6.5 ties to -6
    second, index = latent_quantise(y, parameters, exponent, parameters, second=True)
    assert second.tolist() == [0, -6]
    assert index.tolist() == [0, 127]
    first = latent_accept(symbols, parameters, exponent)
    assert first.tolist() == [[[[3 * 32 + 48, 0], [0, -2 * 16 - 24]]]]
    values = latent_accept(second, parameters, exponent, first)
    assert values.tolist() == [[[[144, 40], [-6 * 32 + 80, -56]]]]
    assert latent_dequantise(values, exponent).tolist() == [[[[4.5, 2.5], [-3.5, -3.5]]]]
    assert latent_dequantise(values, exponent, parameters).tolist() == [[[[9.0, 2.5], [-1.75, -3.5]]]]


def test_dead_zones_are_those_of_the_levels():
    numbers = [0.49, 0.51, 0.69, 0.71, 1.4, 1.6, -0.69, -0.71, math.nan, 0.0]
    y = torch.tensor(numbers).view(1, 1, 1, -1).repeat(1, 2, 1, 2)
    parameters, exponent = torch.zeros(1, 2, 1, 40, dtype=torch.int16), torch.zeros(20, dtype=torch.int32)
    parameters[..., 10:20] = 8518  # of the upper half: level 127
    zones = torch.zeros(128)
    zones[44], zones[127] = 0.7, 1.5
    symbols, index = latent_quantise(y, parameters, exponent, zones=zones)
    assert index.tolist() == [44] * 10 + [127] * 10
    assert symbols[:10].tolist() == [0, 0, 0, 1, 1, 2, 0, -1, -32767, 0]
    assert symbols[10:].tolist() == [0, 0, 0, 0, 0, 2, 0, 0, -32767, 0]


def test_the_filter_takes_noise_out_before_the_zone():
    y = torch.tensor([4.0, 4.0, 1.2, math.nan]).view(1, 1, 1, 4).repeat(1, 2, 1, 1)
    noise = torch.tensor([0.0, 1.0, 1.0, 1.0]).view(1, 1, 1, 4).repeat(1, 2, 1, 1)
    parameters, exponent = torch.zeros(1, 2, 1, 8, dtype=torch.int16), torch.zeros(4, dtype=torch.int32)
    zones, variances = torch.full((128,), 0.7), torch.full((128,), 1.0)
    symbols = [latent_quantise(y, parameters, exponent, None, second, zones, noise, variances)[0] for second in (0, 1)]
    assert [s.tolist() for s in symbols] == [[4, 2, 0, -32767], [0, -32767, 4, 2]]


def test_the_filter_of_the_codec_is_that_of_training():
    levels = torch.linspace(entropy.LOG_SCALE_MIN, entropy.LOG_SCALE_MAX, 128)
    variances = IntegerPriors(untrained(TONED)).variances
    torch.testing.assert_close(variances, torch.exp(2 * levels))
    residual, noise = torch.randn(128), torch.rand(128)
    expected = residual * variances / (variances + noise**2)
    torch.testing.assert_close(entropy.filtered(residual, levels, noise), expected)
    assert torch.equal(entropy.filtered(residual, levels, None), residual)


def test_zones_of_the_codec_are_those_of_the_network():
    levels = torch.linspace(entropy.LOG_SCALE_MIN, entropy.LOG_SCALE_MAX, 128)
    zones = IntegerPriors(untrained(TONED)).zones
    torch.testing.assert_close(zones, entropy.dead_zone(levels))
    assert 0.7 < zones[0] < 0.75
    assert 0.5 <= zones[-1] < 0.501
    assert (zones.diff() <= 1e-7).all()
    residual = torch.tensor([0.7, 0.74, 0.6, -0.51, 1.51, 1.51])
    scales = torch.tensor([levels[1], levels[1], levels[60], levels[127], levels[1], levels[0]])
    assert entropy.quantised(residual, scales).tolist() == [0, 1, 1, -1, 2, 0]


def test_what_is_no_number_is_still_a_symbol():
    y = torch.tensor([math.nan, math.inf, -math.inf, 1e9]).view(1, 1, 1, 4).repeat(1, 2, 1, 1)
    parameters, exponent = torch.zeros(1, 2, 1, 8, dtype=torch.int16), torch.zeros(4, dtype=torch.int32)
    symbols, _ = latent_quantise(y, parameters, exponent)
    assert symbols.tolist() == [-32767, 32767, -32767, 32767]


def test_steps_are_those_of_training():
    """Each takes what the checkerboard of the float network gives it."""
    shape = (2, 5, 4, 6)
    given = drawn(shape, 12)
    y, parameters = given["y"].nan_to_num(0, 9, -9).clamp(-999, 999), given["parameters"]
    parameters[..., :6] = 8000  # coded everywhere
    exponent = torch.full((6,), 12, dtype=torch.int32)
    symbols, _ = latent_quantise(y, parameters, exponent)
    values = latent_accept(symbols, parameters, exponent)
    mine = checkerboard(6, 5, 4)[0].permute(1, 2, 0)
    assert not values[:, ~mine].any()
    decoded = latent_dequantise(values, exponent)
    assert ((decoded - y)[:, mine].abs() <= 0.5 + 1e-4).all()
    symbols, _ = latent_quantise(y, parameters, exponent, second=True)
    both = latent_accept(symbols, parameters, exponent, values)
    assert torch.equal(both[:, mine], values[:, mine])
    assert ((latent_dequantise(both, exponent) - y).abs() <= 0.5 + 1e-4).all()


def test_definitions_serve_where_no_kernel_is():
    given = drawn(*SHAPES[3])
    expected = [getattr(latent, name)(*arguments) for name, arguments in calls_of(given)]
    with plain_torch():
        for (name, arguments), one in zip(calls_of(given), expected, strict=True):
            assert same(getattr(latent, name)(*arguments), one), name


@needs_native
@pytest.mark.parametrize(
    "name, change, message",
    [
        ("latent_scale_index", {0: torch.zeros(3, 4)}, "parameters must be Short, got Float"),
        ("latent_scale_index", {0: torch.zeros(3, 4).short()}, r"parameters must have the shape \(B, H, W, C\), got 2"),
        ("latent_scale_index", {1: 5}, "the number of channels must be even and not negative, got 5"),
        ("latent_scale_index", {1: 18}, "parameters must have at least 36 channels, got 32"),
        ("latent_scale_index", {1: 2**62}, "parameters must have at least 4611686018427387904 channels, got 32"),
        ("latent_quantise", {0: torch.zeros(2, 3, 5, 16).double()}, "y must be Float, got Double"),
        ("latent_quantise", {0: torch.zeros(2, 3, 4, 16)}, "parameters must have the pictures, rows and columns of y"),
        ("latent_quantise", {2: torch.zeros(15).int()}, r"exponent must have the shape \(16,\)"),
        ("latent_quantise", {3: torch.zeros(2, 3, 5, 9).short()}, "step must have at least 16 channels, got 9"),
        ("latent_quantise", {5: torch.zeros(127)}, r"zones must have the shape \(128,\)"),
        ("latent_quantise", {5: torch.zeros(128).double()}, "zones must be Float, got Double"),
        ("latent_quantise", {6: torch.zeros(2, 3, 5, 16)}, "noise and variances must come together"),
        ("latent_quantise", {7: torch.zeros(128)}, "noise and variances must come together"),
        (
            "latent_quantise",
            {6: torch.zeros(2, 3, 5, 15), 7: torch.ones(128)},
            "noise must have 16 channels, got 15",
        ),
        ("latent_quantise", {6: torch.zeros(2, 3, 5, 16), 7: torch.ones(9)}, r"variances must have the shape \(128,\)"),
        ("latent_accept", {0: torch.zeros(241).short()}, r"symbols must have the shape \(240,\)"),
        ("latent_accept", {0: torch.zeros(240).int()}, "symbols must be Short, got Int"),
        ("latent_accept", {2: torch.zeros(2, 2).int()}, r"exponent must have the shape \(C,\), got 2"),
        ("latent_accept", {3: torch.zeros(2, 3, 5, 17).int()}, "values must have 16 channels, got 17"),
        ("latent_dequantise", {0: torch.zeros(2, 3, 5, 16)}, "values must be Int, got Float"),
        ("latent_dequantise", {2: torch.zeros(1, 3, 5, 16).short()}, "step must have the pictures, rows and columns"),
    ],
)
def test_bad_arguments_are_named(name, change, message):
    arguments = list(next(given for case, given in calls_of(drawn(*SHAPES[0])) if case == name))
    for place, value in change.items():
        arguments[place] = value
    with pytest.raises(RuntimeError, match=f"{name}: {message}"):
        getattr(latent, name)(*arguments)
