"""What an H200 should make of kernels, codec and coder, before it is measured: ``python -m benchmarks.predictions``.

Bytes and operations are those of the calls that the networks make (``network_calls.py``). The floor divides them by
what the GPU can do at best; the expectation, by the shares of that which are written down here, plus the time that a
launch takes. ``--measured FOLDER`` fills in what ``kernels.csv``, ``speed-cuda.csv`` and ``coder-streams.csv`` of a run
of ``gpu_run.sh`` say. ``--device cuda --csv kernels.csv`` makes the first of these: each kernel by itself, on a cold
cache.
"""

from __future__ import annotations

import argparse
import csv
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import torch

from aicr_ext.model.config import get_config
from aicr_ext.profiling.report import as_lines

from .network_calls import NetworkCall, network_calls
from .speed import GRAPHS, MANY_STREAMS
from .speed import STREAMS as MANY
from .timing import circumstances, measure_events, measure_together, write_csv

MODELS, SIZE = ("aicr-t", "aicr-s"), (768, 512)
PRECISIONS, BATCHES = ("bfloat16", "float32"), (1, 16)
KERNELS = (
    "decoupled_attention",
    "depthwise_gram",
    "fold_channel_attention",
    "gated_depthwise_conv3x3",
    "layer_norm2d",
    "layer_norm_conv1x1",
)
#: Parts of the calls that each way to code takes, and those that a codec with CUDA graphs records.
CODING = {
    "encode": ("analysis", "hyper analysis", "entropy networks", "encode steps"),
    "decode": ("entropy networks", "decode steps", "synthesis"),
}
RECORDED = ("analysis", "synthesis")
KINDS = ("our kernels", "convolutions, products", "pixel shuffles", "casts, sums, others")
STREAMS = (1, 16, 256, 4096, 16384)
#: Of one picture.
PARTS = (1, 2, 4, 8, MANY, 32)
#: Measurements, once there are any.
MEASURED = Path(__file__).parent / "results" / "h200"

# The H200: bytes per second of its memory; operations per second of tensor cores (dense, bfloat16 and bytes), of the
# float32 units, and of the int32 units, which are half as many; multiprocessors; clock, in Hz, that these belong to.
MEMORY, TENSOR, INT8, FLOAT32, INT32 = 4.8e12, 989e12, 1979e12, 67e12, 33.5e12
PROCESSORS, CLOCK = 132, 1.98e9

# Expectations: shares of the rates above; seconds that a launch costs a kernel by itself, and within a graph; seconds
# that Python and torch take to queue an operator.
OF_MEMORY, OF_TENSOR, OF_UNITS = 0.6, 0.4, 0.4
LAUNCH, NODE, QUEUE = 4e-6, 1.5e-6, 7e-6

# The coder, by the lanes of a stream, which take as many symbols in a round: cycles from one round to the next, which a
# stream by itself waits for, and instructions of a round, of which all warps of a multiprocessor issue two per cycle;
# and how many streams it holds. docs/performance.md tells where they come from.
WIDE, NARROW = 32, 8
ROUND_CYCLES = {"encode": {WIDE: 290, NARROW: 230}, "decode": {WIDE: 155, NARROW: 110}}
ROUND_INSTRUCTIONS = {"encode": {WIDE: 120, NARROW: 100}, "decode": {WIDE: 80, NARROW: 50}}
RESIDENT = {"encode": 28, "decode": 14}
ISSUED = 2.0

Row = dict[str, object]


@cache
def calls_of(model: str, precision: str, batch: int = 1) -> dict[str, list[NetworkCall]]:
    """The calls for pictures of :data:`SIZE`, by part of the network."""
    return network_calls(model, *SIZE, precision, batch)


def coding(model: str, precision: str, batch: int) -> dict[str, list[NetworkCall]]:
    """Those of each way to code."""
    parts = calls_of(model, precision, batch)
    return {way: [call for name in names for call in parts[name]] for way, names in CODING.items()}


def eager_seconds(calls: Sequence[NetworkCall]) -> float:
    """As Python queues them."""
    return max(len(calls) * QUEUE, sum(expected(call, LAUNCH) for call in calls))


def graphs_seconds(model: str, precision: str, batch: int) -> dict[str, float]:
    """Of each way to code where those parts are CUDA graphs that the codec records."""
    parts = calls_of(model, precision, batch)
    return {
        way: sum(expected(call, NODE) for name in names if name in RECORDED for call in parts[name])
        + eager_seconds([call for name in names if name not in RECORDED for call in parts[name]])
        for way, names in CODING.items()
    }


def operation_seconds(call: NetworkCall, tensor: float = TENSOR, units: float = FLOAT32) -> float:
    """The least time for a call's operations: tensor cores compute products of 16-bit maps, other units the rest."""
    convolution = call.name == "aten::convolution"
    depthwise = convolution and call.shapes[1][1] == 1
    if call.dtype == "int16":  # of which tensor cores multiply the bytes, four products for each
        return call.flops / (tensor * INT8 / TENSOR / 4 if convolution and not depthwise else units * INT32 / FLOAT32)
    if call.dtype != "bfloat16":
        return call.flops / units
    if call.name == "aicr_ext::depthwise_gram":
        batch, channels, height, width = call.shapes[0]
        taps = 2 * 9 * batch * channels * height * width
        return max(taps / units, (call.flops - taps) / tensor)
    products = call.name == "aicr_ext::layer_norm_conv1x1" or (call.name.startswith("aten::") and not depthwise)
    return call.flops / (tensor if products else units)


def floor(call: NetworkCall) -> float:
    """Seconds that a call takes at least."""
    return max(call.bytes / MEMORY, operation_seconds(call))


def expected(call: NetworkCall, launch: float) -> float:
    """Seconds that a call should take, with ``launch`` for each of its kernels."""
    launches = 2 if call.name == "aicr_ext::depthwise_gram" else 1
    busy = max(call.bytes / (OF_MEMORY * MEMORY), operation_seconds(call, OF_TENSOR * TENSOR, OF_UNITS * FLOAT32))
    return busy + launches * launch


def shape_of(call: NetworkCall) -> str:
    """What a call of a kernel is told by: its map, and how many channels a convolution makes of it."""
    shape = "x".join(map(str, call.shapes[0]))
    if call.name != "aicr_ext::layer_norm_conv1x1":
        return shape
    return f"{shape} to {sum(weight[0] for weight in call.shapes[1:] if len(weight) == 4)}"


def kernel_calls() -> dict[tuple[str, str], tuple[str, dict[str, NetworkCall]]]:
    """Our kernels as the networks call them: by name and shape, the model, and the call in each precision, if any."""
    found: dict[tuple[str, str], tuple[str, dict[str, NetworkCall]]] = {}
    for model in MODELS:
        for precision in PRECISIONS:
            parts = calls_of(model, precision)
            for call in [*parts["analysis"], *parts["synthesis"]]:
                space, _, name = call.name.partition("::")
                if space != "aicr_ext":
                    continue
                _, calls = found.setdefault((name, shape_of(call)), (model, {}))
                # Between a quality scale and the next convolution maps are float32 also under autocast.
                if precision not in calls or (call.dtype == precision != calls[precision].dtype):
                    calls[precision] = call
    return dict(sorted(found.items()))


def kernel_rows(measured: Path) -> list[Row]:
    """One line per kernel and shape, with both precisions."""
    times = {(row["kernel"], row["map"], row["precision"]): float(row["us"]) for row in read(measured / "kernels.csv")}
    rows = []
    for (name, shape), (model, calls) in kernel_calls().items():
        row: Row = {"kernel": name, "map": shape, "model": model}
        for precision in PRECISIONS:
            call, short = calls.get(precision), {"bfloat16": "bf16", "float32": "f32"}[precision]
            row[f"{short} MB"] = call.bytes / 1e6 if call else None
            if precision == "bfloat16":
                row["MFLOP"] = next(iter(calls.values())).flops / 1e6 or None
            row[f"{short} floor us"] = 1e6 * floor(call) if call else None
            row[f"{short} expected us"] = 1e6 * expected(call, LAUNCH) if call else None
            row[f"{short} measured us"] = times.get((name, shape, precision))
        rows.append(row)
    return rows


def coder_rate(streams: int, way: str, lanes: int = WIDE) -> float:
    """Symbols per second of so many streams: they wait side by side until the multiprocessors issue no more."""
    alone = lanes * CLOCK / ROUND_CYCLES[way][lanes]
    together = lanes * CLOCK * PROCESSORS * ISSUED / ROUND_INSTRUCTIONS[way][lanes]
    return min(min(streams, PROCESSORS * RESIDENT[way]) * alone, together)


def coder_rows(measured: Path) -> list[Row]:
    """One line per number of streams."""
    found = {
        int(row["streams"]): row
        for row in read(measured / "coder-streams.csv")
        if row["device"] == "cuda" and row["workload"].startswith("C")
    }
    return [
        {
            "streams": streams,
            **{f"{way} expected Gsym/s": coder_rate(streams, way) / 1e9 for way in ROUND_CYCLES},
            **{
                f"{way} measured Gsym/s": float(found[streams][f"{way} Gsym/s"]) if streams in found else None
                for way in ROUND_CYCLES
            },
        }
        for streams in STREAMS
    ]


def symbols_of(model: str) -> float:
    """Of one picture of :data:`SIZE`."""
    config = get_config(model)
    return SIZE[0] * SIZE[1] / 256 * (config.components + config.hyper / 16)


def codec_rows(measured: Path) -> list[Row]:
    """One line per model, precision, batch and direction; seconds are those of the whole batch."""
    found = {
        (row["model"], row["precision"], int(row["batch"]), row["path"]): row
        for row in read(measured / "speed-cuda.csv")
        if row["size"] == "{}x{}".format(*SIZE)
    }
    rows = []
    for model in MODELS:
        for precision in PRECISIONS:
            for batch in BATCHES:
                for way, calls in coding(model, precision, batch).items():
                    coder = batch * symbols_of(model) / coder_rate(batch, way, NARROW)
                    graph, eager = graphs_seconds(model, precision, batch)[way], eager_seconds(calls)
                    row: Row = {"model": model, "precision": precision, "batch": batch, "way": way}
                    row |= {"calls": len(calls), "GB": sum(c.bytes for c in calls) / 1e9}
                    row |= {"GFLOP": sum(c.flops for c in calls) / 1e9, "floor ms": 1e3 * sum(map(floor, calls))}
                    row |= {"coder ms": 1e3 * coder}
                    for name, path, seconds in (("", "aicr_ext", eager), ("graphs, ", "aicr_ext, graphs", graph)):
                        one = found.get((model, precision, batch, path))
                        row[f"{name}expected ms"] = 1e3 * (seconds + coder)
                        row[f"{name}measured ms"] = 1e3 * float(one[f"{way} s"]) if one else None
                    rows.append(row)
    return rows


def parts_rows(measured: Path) -> list[Row]:
    """One line per model and number of streams of one picture, in bfloat16 with graphs; milliseconds."""
    found = {
        (row["model"], 1 if row["path"] == GRAPHS else MANY): row
        for row in read(measured / "speed-cuda.csv")
        if (row["precision"], row["batch"]) == ("bfloat16", "1") and row["path"] in (GRAPHS, MANY_STREAMS)
    }
    rows = []
    for model in MODELS:
        networks = graphs_seconds(model, "bfloat16", 1)
        for parts in PARTS:
            row: Row = {"model": model, "streams": parts}
            for way, seconds in networks.items():
                coder = symbols_of(model) / coder_rate(parts, way, NARROW)
                row[f"{way} expected ms"] = 1e3 * (seconds + coder)
            row["both expected ms"] = sum(row[f"{way} expected ms"] for way in networks)
            one = found.get((model, parts))
            row["both measured ms"] = 1e3 * sum(float(one[f"{way} s"]) for way in networks) if one else None
            rows.append(row)
    return rows


def kind_of(call: NetworkCall) -> str:
    """What a call is for, roughly."""
    space, _, name = call.name.partition("::")
    if space == "aicr_ext":
        return "our kernels"
    if name in ("convolution", "mkldnn_convolution", "bmm", "baddbmm", "addmm"):
        return "convolutions, products"
    # A shuffle is a copy of a map whose channels and neighbouring pixels have axes of their own.
    if "shuffle" in name or (name == "clone" and len(call.shapes[0]) == 6):
        return "pixel shuffles"
    return "casts, sums, others"


def share_rows() -> list[Row]:
    """Percent of the time that the networks should take, by what it is for; the coder and Python are not in it."""
    rows = []
    for model in MODELS:
        for precision in PRECISIONS:
            for batch in BATCHES:
                for way, calls in coding(model, precision, batch).items():
                    seconds = dict.fromkeys(KINDS, 0.0)
                    for call in calls:
                        seconds[kind_of(call)] += expected(call, LAUNCH)
                    row: Row = {"model": model, "precision": precision, "batch": batch, "way": way}
                    rows.append(row | {f"{kind} %": 100 * s / sum(seconds.values()) for kind, s in seconds.items()})
    return rows


def read(path: Path) -> list[dict[str, str]]:
    """The lines of a table, none where there is no file."""
    return list(csv.DictReader(path.read_text().splitlines())) if path.exists() else []


def measure_kernels(wanted: Sequence[str] | None, device: str, seconds: float, path: str | None) -> list[Row]:
    """Times of the kernels at their shapes, beside what was expected. The file grows with every kernel."""
    rows: list[Row] = []
    facts = circumstances(device)
    for (name, shape), (model, calls) in kernel_calls().items():
        if wanted and name not in wanted:
            continue
        operator = getattr(torch.ops.aicr_ext, name)
        for precision, call in calls.items():
            arguments = call.drawn(device)
            run = [lambda operator=operator, arguments=arguments: operator(*arguments)]
            with torch.no_grad():
                (took,) = measure_events(run, seconds) if device == "cuda" else measure_together(run, seconds)
            row: Row = {"kernel": name, "map": shape, "model": model, "precision": precision, "us": 1e6 * took}
            row |= {"floor us": 1e6 * floor(call), "expected us": 1e6 * expected(call, LAUNCH)}
            rows.append(row | {"x expected": took / expected(call, LAUNCH)})
            if path:
                write_csv(path, [row | facts for row in rows])
    return rows


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser("python -m benchmarks.predictions", description="what an H200 should make of it")
    parser.add_argument("--measured", type=Path, default=MEASURED, help="results to fill in (default: %(default)s)")
    parser.add_argument("--device", choices=("cuda", "cpu"), help="measure the kernels there instead")
    parser.add_argument("--seconds", type=float, default=0.05, help="for each kernel (default: %(default)s)")
    parser.add_argument("--kernels", nargs="+", choices=KERNELS, help="with --device: only these")
    parser.add_argument("--csv", help="also write the kernels that were measured to this file")
    options = parser.parse_args(argv)
    if options.device:
        print(as_lines(measure_kernels(options.kernels, options.device, options.seconds, options.csv)))
        return
    tables = {
        "Kernels": kernel_rows(options.measured),
        "Codec": codec_rows(options.measured),
        "Shares": share_rows(),
        "One picture in several streams": parts_rows(options.measured),
        "Coder": coder_rows(options.measured),
    }
    for title, rows in tables.items():
        print(f"## {title}\n\n{as_lines(rows)}\n")


if __name__ == "__main__":
    main()
