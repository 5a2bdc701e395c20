"""Rate and distortion over a folder of pictures: ``python -m benchmarks.rate_distortion FOLDER [--out FOLDER]``.

Conventions: the rate is that of the real file, header included; PSNR and MS-SSIM are of 8-bit RGB, averaged over
pictures; BD-rate by Akima interpolation of the averages. JPEG (Pillow, optimised, 4:2:0), WebP and AVIF are measured
in the same run on the same pictures. The estimate is what the entropy model promised before the coder.
"""

from __future__ import annotations

import argparse
import io
import json
import resource
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from statistics import fmean

import numpy as np
import torch
from bjontegaard import bd_psnr, bd_rate
from PIL import Image
from pytorch_msssim import ms_ssim
from torch import Tensor
from tqdm import tqdm

import aicr_ext
from aicr_ext.images import READ_SUFFIXES, read_image

from .timing import print_table, write_csv

Row = dict[str, object]

#: Quality settings of the codecs measured beside ours.
BASELINES = {
    "jpeg": ("JPEG", [5, 10, 20, 30, 40, 50, 60, 70, 80, 90], {"optimize": True, "subsampling": "4:2:0"}),
    "webp": ("WEBP", [1, 10, 25, 40, 55, 70, 80, 90], {"method": 6}),
    "avif": ("AVIF", [20, 30, 40, 50, 60, 70, 80], {"speed": 6}),
}


def to_tensor(image: Image.Image) -> Tensor:
    """(3, H, W) uint8."""
    return torch.from_numpy(np.array(image)).permute(2, 0, 1)


def distortion(decoded: Tensor, original: Tensor) -> dict[str, float]:
    """PSNR in dB and MS-SSIM of two uint8 pictures (3, H, W)."""
    a, b = decoded[None].float(), original[None].float()
    mse = float((a - b).square().mean())
    smallest = min(original.shape[1:])
    similarity = float(ms_ssim(a, b, data_range=255)) if smallest > 160 else float("nan")
    return {
        "psnr": 10 * np.log10(255**2 / max(mse, 1e-10)),
        "ms_ssim": similarity,
        "ms_ssim_db": -10 * np.log10(max(1 - similarity, 1e-10)),
    }


def ours(codec: aicr_ext.Codec, picture: Tensor, quality: int) -> Row:
    """One picture at one quality through the codec."""
    start = time.perf_counter()
    data = codec.compress(picture, quality=quality)
    middle = time.perf_counter()
    decoded = codec.decompress(data)
    end = time.perf_counter()
    pixels = picture[0].numel()
    return {
        "bpp": 8 * len(data) / pixels,
        "estimated_bpp": codec.estimate_bits(picture, quality=quality) / pixels,
        **distortion((decoded * 255).round().byte(), picture),
        "encode_s": middle - start,
        "decode_s": end - middle,
    }


def baseline(name: str, picture: Tensor, quality: int) -> Row:
    """One picture at one quality through a codec of Pillow's."""
    kind, _, options = BASELINES[name]
    file = io.BytesIO()
    image = Image.fromarray(picture.permute(1, 2, 0).contiguous().numpy())
    start = time.perf_counter()
    image.save(file, kind, quality=quality, **options)
    middle = time.perf_counter()
    decoded = Image.open(io.BytesIO(file.getvalue())).convert("RGB")
    end = time.perf_counter()
    bpp = 8 * file.tell() / picture[0].numel()
    return {
        "bpp": bpp,
        "estimated_bpp": bpp,
        **distortion(to_tensor(decoded), picture),
        "encode_s": middle - start,
        "decode_s": end - middle,
    }


def jobs(codec: aicr_ext.Codec, qualities: Sequence[int]) -> Iterator[tuple[str, int, Callable[[Tensor], Row]]]:
    """Every codec and quality to measure, with the function that measures one picture."""
    for quality in qualities:
        yield codec.name, quality, lambda picture, q=quality: ours(codec, picture, q)
    for name, (_, settings, _) in BASELINES.items():
        for quality in settings:
            yield name, quality, lambda picture, n=name, q=quality: baseline(n, picture, q)


def average(rows: list[Row]) -> list[Row]:
    """Means over pictures, one row per codec and quality, in the order they were measured."""
    groups: dict[tuple[str, int], list[Row]] = {}
    for row in rows:
        groups.setdefault((row["codec"], row["quality"]), []).append(row)
    names = [k for k in rows[0] if k not in ("codec", "quality", "picture")]
    return [
        {"codec": codec, "quality": quality, **{k: fmean(row[k] for row in group) for k in names}}
        for (codec, quality), group in groups.items()
    ]


def curve(means: list[Row], codec: str) -> tuple[list[float], list[float]]:
    """Rates and PSNRs of a codec, by rate."""
    points = sorted((row["bpp"], row["psnr"]) for row in means if row["codec"] == codec)
    return [p[0] for p in points], [p[1] for p in points]


def compare(test: tuple[list[float], list[float]], anchor: tuple[list[float], list[float]]) -> Row:
    """BD-rate in percent and BD-PSNR in dB of one curve against another, over the range both cover."""
    arguments = (*anchor, *test)
    options = {"method": "akima", "require_matching_points": False, "min_overlap": 0.2}
    return {"BD-rate %": bd_rate(*arguments, **options), "BD-PSNR dB": bd_psnr(*arguments, **options)}


def comparisons(means: list[Row], name: str, anchors: Path | None) -> list[Row]:
    """Our curve against every baseline of the run, and against published curves if given."""
    test = curve(means, name)
    rows = [{"against": f"{b} (live)", **compare(test, curve(means, b))} for b in BASELINES]
    if anchors is not None:
        for codec, values in json.loads(anchors.read_text()).items():
            try:
                rows.append({"against": codec, **compare(test, (values["bpp"], values["psnr"]))})
            except ValueError:  # curves that hardly overlap have no BD-rate
                continue
    return rows


def plot(means: list[Row], path: Path) -> None:
    """PSNR and MS-SSIM (dB) over bits per pixel, one line per codec of the run."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, 2, figsize=(10, 4.2), layout="constrained")
    for axis, metric, label in zip(axes, ("psnr", "ms_ssim_db"), ("PSNR, dB", "MS-SSIM, dB"), strict=True):
        for codec in dict.fromkeys(row["codec"] for row in means):
            points = sorted((row["bpp"], row[metric]) for row in means if row["codec"] == codec)
            style = "--" if codec in BASELINES else "-"
            axis.plot(*zip(*points, strict=True), style, marker="o", markersize=3, label=codec)
        axis.set(xlabel="bits per pixel, whole file", ylabel=label, xlim=(0, 2))
        axis.grid(alpha=0.3)
    axes[0].legend()
    figure.savefig(path, dpi=100)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("folder", type=Path, help="lossless pictures, for instance the Kodak suite")
    parser.add_argument("--model", default="aicr-t", help="shipped model or weight file")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--qualities", type=int, nargs="+", default=np.linspace(0, 63, 8).round().astype(int).tolist())
    parser.add_argument("--anchors", type=Path, help="JSON of published curves: {codec: {bpp: [], psnr: []}}")
    parser.add_argument("--plot", type=Path, help="file for a picture of the curves")
    parser.add_argument("--out", type=Path, help="folder for pictures.csv, means.csv and bd.csv")
    args = parser.parse_args()
    codec = aicr_ext.Codec(args.model, args.device)
    files = sorted(f for f in args.folder.iterdir() if f.suffix.lower() in READ_SUFFIXES)
    pictures = {f.name: to_tensor(read_image(f)) for f in files}
    codec.decompress(codec.compress(next(iter(pictures.values()))))  # first calls compile inner kernels
    rows: list[Row] = []
    work = list(jobs(codec, args.qualities))
    with tqdm(total=len(work) * len(pictures), unit="file", disable=None) as bar:
        for name, quality, run in work:
            for file, picture in pictures.items():
                rows.append({"codec": name, "quality": quality, "picture": file, **run(picture)})
                bar.update()
            if name == codec.name:
                peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    means = average(rows)
    scores = comparisons(means, codec.name, args.anchors)
    print_table(means)
    print()
    print_table(scores)
    print(
        f"\n{len(pictures)} pictures, {codec.name} weights {codec.weight_hash[:4].hex()}, torch {torch.__version__}, "
        f"{torch.get_num_threads()} threads on {codec.device}; peak memory of the process {peak:.2f} GiB"
    )
    if args.plot:
        plot(means, args.plot)
    if args.out:
        args.out.mkdir(parents=True, exist_ok=True)
        for name, table in (("pictures", rows), ("means", means), ("bd", scores)):
            write_csv(args.out / f"{name}.csv", table)


if __name__ == "__main__":
    main()
