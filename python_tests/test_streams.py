"""The streams of one picture: their number, both ways of coding them, and what a damaged one says."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from coder_cases import draw, mixed_tables
from pictures import smooth

import aicr_ext
from aicr_ext import errors
from aicr_ext.codec import container, streams
from aicr_ext.codec.rans import TableSet
from aicr_ext.codec.rans_reference import decode_reference
from aicr_ext.codec.streams import STREAM_BYTES, StreamsDecoder, encode_as, encode_streams
from aicr_ext.codec.tables import gaussian_tables
from aicr_ext.ops.kernels import plain_torch
from aicr_ext.ops.rans import MAX_STREAMS, even_splits

SIZES = (700, 0, 1500, 3)


def drawn(*sets: TableSet, escapes: float = 0.02) -> list[streams.Segment]:
    """Segments with the given table sets in turn, or with two of different kinds."""
    rng, sets, segments = np.random.default_rng(3), sets or (mixed_tables(), gaussian_tables()), []
    for g, size in enumerate(SIZES):
        symbols, index = draw(rng, sets[g % len(sets)], size, escapes)
        segments.append((torch.from_numpy(symbols), torch.from_numpy(index), sets[g % len(sets)]))
    return segments


def uniform(count: int) -> list[streams.Segment]:
    """Symbols that take the raw bits of a Gaussian table: about a byte each."""
    symbols = torch.randint(-60, 60, (count,), generator=torch.Generator().manual_seed(1)).short()
    return [(symbols, torch.full((count,), 127).byte(), gaussian_tables())]


def coded_as(segments: list[streams.Segment], count: int) -> list[bytes]:
    """As one picture."""
    (coded,) = encode_as(segments, [count])
    return coded


def decode(coded, segments) -> list[torch.Tensor]:
    return decode_all([coded], segments)


def decode_all(pictures, segments, names=None) -> list[torch.Tensor]:
    sizes = [len(index) // len(pictures) for _, index, _ in segments]
    decoder = StreamsDecoder(pictures, sizes, names=names)
    symbols = [decoder.pop(index, tables) for _, index, tables in segments]
    decoder.finish()
    decoder.check()
    return symbols


@pytest.mark.parametrize("count", [1, 2, 3, 7, 40])
def test_with_kernels_and_without(count):
    """40 streams are more than the groups of any segment."""
    segments = drawn()
    coded = coded_as(segments, count)
    assert len(coded) == count
    with plain_torch():
        assert coded_as(segments, count) == coded
        plain = decode(coded, segments)
    for got in (decode(coded, segments), plain):
        assert all(torch.equal(part, symbols) for part, (symbols, _, _) in zip(got, segments, strict=True))


def test_the_twin_reads_every_stream():
    segments = drawn(mixed_tables())
    for s, stream in enumerate(coded_as(segments, 3)):
        own = [slice(*even_splits(len(index), 3)[s : s + 2].tolist()) for _, index, _ in segments]
        keys = [(index[o].numpy(), tables) for (_, index, tables), o in zip(segments, own, strict=True)]
        for got, (symbols, _, _), o in zip(decode_reference(stream, keys), segments, own, strict=True):
            np.testing.assert_array_equal(got, symbols[o])


def test_the_number_follows_from_the_bytes():
    assert STREAM_BYTES == 64 << 10
    for count in (0, 50_000, 80_000, 200_000):
        segments = uniform(count)
        size = len(coded_as(segments, 1)[0])
        (coded,) = encode_streams(segments)
        assert len(coded) == max(1, -(-size // STREAM_BYTES))
        assert coded == coded_as(segments, len(coded))
        assert sum(map(len, coded)) <= size + 120 * (len(coded) - 1)
        assert all(len(stream) < 1.1 * STREAM_BYTES for stream in coded)


@pytest.mark.parametrize("more", [-1, 0, 1])
def test_up_to_the_limit_there_is_one(monkeypatch, more):
    segments = uniform(1000)
    monkeypatch.setattr(streams, "STREAM_BYTES", len(coded_as(segments, 1)[0]) + more)
    assert len(encode_streams(segments)[0]) == (2 if more < 0 else 1)


@pytest.mark.parametrize("count", [1, 5, 256])
def test_the_number_can_be_given(monkeypatch, count):
    segments = uniform(1000)
    monkeypatch.setattr(streams, "STREAM_BYTES", 50)  # by itself it would be another one
    assert encode_streams(segments, 1, count) == [coded_as(segments, count)]
    pair, each = of_pictures(2)
    assert encode_streams(pair, 2, count) == [coded_as(own, count) for own in each]


def test_there_are_never_too_many(monkeypatch):
    monkeypatch.setattr(streams, "STREAM_BYTES", 2)
    assert len(encode_streams(uniform(1000))[0]) == MAX_STREAMS == 256


@pytest.mark.parametrize("stream", [0, 1, 2])
@pytest.mark.parametrize("change", ["header", "words", "end"])
def test_a_damaged_stream_is_named(stream, change):
    """By one text, with kernels or without."""
    segments = drawn(escapes=0)
    coded = coded_as(segments, 3)
    damaged = bytearray(coded[stream])
    match change:
        case "header":
            damaged[0] = 7
        case "words":
            damaged[40:60] = bytes(20)
        case "end":
            damaged += b"\0"
    coded[stream] = bytes(damaged)
    texts = []
    for without in (False, True):
        with plain_torch() if without else torch.no_grad(), pytest.raises(errors.BitstreamError) as caught:
            decode(coded, segments)
        texts.append(f"{type(caught.value).__name__} {caught.value}")
    assert texts[0] == texts[1]
    assert f"stream {stream + 1} of 3: " in texts[0]


def test_one_stream_needs_no_name():
    (coded,) = coded_as(drawn(), 1)
    for without in (False, True):
        expected = pytest.raises(errors.TruncatedError, match=r"^the words and raw bits")
        with plain_torch() if without else torch.no_grad(), expected:
            StreamsDecoder([[coded[:100]]], SIZES)


def of_pictures(count: int) -> tuple[list[streams.Segment], list[list[streams.Segment]]]:
    """Segments of several pictures, and those of each."""
    rng, sets = np.random.default_rng(4), (mixed_tables(), gaussian_tables())
    each = []
    for p in range(count):
        segments = []
        for g, size in enumerate(SIZES):
            symbols, index = draw(rng, sets[g % 2], size, 0.3 * p / count)
            segments.append((torch.from_numpy(symbols), torch.from_numpy(index), sets[g % 2]))
        each.append(segments)
    together = [
        (torch.cat([one[g][0] for one in each]), torch.cat([one[g][1] for one in each]), sets[g % 2])
        for g in range(len(SIZES))
    ]
    return together, each


@pytest.mark.parametrize("without", [False, True], ids=["kernels", "plain"])
def test_pictures_side_by_side_are_those_alone(without, monkeypatch):
    """Some need several streams, and some do not."""
    together, each = of_pictures(4)
    sizes = sorted(len(coded_as(segments, 1)[0]) for segments in each)
    monkeypatch.setattr(streams, "STREAM_BYTES", (sizes[1] + sizes[2]) // 2)
    alone = [encode_streams(segments)[0] for segments in each]
    assert {len(coded) for coded in alone} >= {1, 2}
    with plain_torch() if without else torch.no_grad():
        coded = encode_streams(together, 4)
        assert coded == alone
        decoded = decode_all(coded, together)
    assert all(torch.equal(part, symbols) for part, (symbols, _, _) in zip(decoded, together, strict=True))


@pytest.mark.parametrize("without", [False, True], ids=["kernels", "plain"])
def test_a_damaged_stream_of_one_picture_among_several(without):
    together, _ = of_pictures(3)
    coded = encode_as(together, [1, 2, 3])
    for picture, stream, name in ((0, 0, "a"), (1, 1, "b, stream 2 of 2"), (2, 2, "stream 3 of 3")):
        changed = [list(streams) for streams in coded]
        changed[picture][stream] += b"\0"
        with plain_torch() if without else torch.no_grad(), pytest.raises(errors.TruncatedError, match=f"^{name}: "):
            decode_all(changed, together, ["a", "b", ""])


def test_several_streams_in_a_file(monkeypatch):
    codec, picture = aicr_ext.Codec(), smooth(200, 160)
    whole = codec.compress(picture, quality=63)
    monkeypatch.setattr(streams, "STREAM_BYTES", 400)
    data = codec.compress(picture, quality=63)
    info = aicr_ext.read_info(data)
    assert info.streams == -(-len(container.unpack(whole)[1][0]) // 400) > 1
    assert info.sections["latents"] > aicr_ext.read_info(whole).sections["latents"]
    assert torch.equal(codec.decompress(data), codec.decompress(whole))
    header, parts = container.unpack(data)
    swapped = container.pack(header, [parts[1], parts[0], *parts[2:]])
    with pytest.raises(errors.BitstreamError, match=f"stream [12] of {info.streams}"):
        codec.decompress(swapped)
