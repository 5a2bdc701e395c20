"""What streams cost beside their payload, on little: docs/bitstream.md names about 30 and 100 bytes."""

from __future__ import annotations

import pytest

import aicr_ext
from benchmarks.coder import LEVELS
from benchmarks.framing import of_a_photograph, of_one_stream, of_several_streams


@pytest.mark.parametrize("lanes, low, high", [(8, 26, 34), (32, 90, 110)])
@pytest.mark.parametrize("name", LEVELS)
def test_a_stream_costs_little_beside_its_payload(name, lanes, low, high):
    assert low < of_one_stream(name, LEVELS[name], lanes, 2000, streams=40)["beside it, bytes"] < high


def test_further_streams_of_a_photograph_cost_as_much_as_small_ones():
    row = of_a_photograph(aicr_ext.Codec(), 16)
    assert 26 < row["bytes per further stream"] < 40


def test_a_further_stream_costs_a_sixth_of_a_per_cent():
    row = of_several_streams("A", LEVELS["A, uniform"], 400_000)
    assert row["streams"] == 3
    assert 0 < row["more %"] < 0.2
