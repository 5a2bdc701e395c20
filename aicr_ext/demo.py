"""``python -m aicr_ext.demo``: one photograph through the codec, and beside it JPEG at the same file size."""

from __future__ import annotations

import argparse
import io
import math
import sys
import time
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

import aicr_ext
from aicr_ext.errors import AicrError
from aicr_ext.images import atomic_write, read_image, write_image

__all__ = ["jpeg_of_size", "main", "psnr", "run", "side_by_side"]


def main(argv: list[str] | None = None) -> int:
    """Command line of the demo; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m aicr_ext.demo", description=__doc__)
    parser.add_argument("image", type=Path, help="photograph to compress")
    parser.add_argument("out", type=Path, help="folder for the results, made if missing")
    parser.add_argument("--quality", type=int, default=32, help="0..63 (default: 32)")
    args = parser.parse_args(argv)
    try:
        run(args.image, args.out, args.quality)
    except (AicrError, OSError, ValueError) as error:
        print(f"demo: {error}", file=sys.stderr)
        return 1
    return 0


def run(source: Path, out: Path, quality: int) -> dict[str, float]:
    """Compress, decode, measure, write ``.aicr``, decoded and side-by-side files to ``out``, print a summary.

    Returns what was measured: ``bytes``, ``bpp``, ``psnr``, ``jpeg_bytes``, ``jpeg_psnr``,
    ``compress_seconds``, ``decompress_seconds``.
    """
    image = read_image(source)
    codec = aicr_ext.Codec("aicr-t")
    started = time.perf_counter()
    data = codec.compress(image, quality=quality)
    compressed = time.perf_counter()
    tensor = codec.decompress(data)
    decoded_at = time.perf_counter()

    out.mkdir(parents=True, exist_ok=True)
    compressed_file = out / f"{source.stem}.aicr"
    decoded_file = out / f"{source.stem}_decoded.png"
    panel_file = out / f"{source.stem}_side_by_side.png"
    atomic_write(compressed_file, data)
    write_image(decoded_file, tensor)
    decoded = read_image(decoded_file)
    jpeg_quality, jpeg = jpeg_of_size(image, len(data))
    jpeg_decoded = Image.open(io.BytesIO(jpeg)).convert("RGB")

    pixels = image.width * image.height
    measured = {
        "bytes": len(data),
        "bpp": 8 * len(data) / pixels,
        "psnr": psnr(image, decoded),
        "jpeg_bytes": len(jpeg),
        "jpeg_psnr": psnr(image, jpeg_decoded),
        "compress_seconds": compressed - started,
        "decompress_seconds": decoded_at - compressed,
    }
    jpeg_bpp = 8 * len(jpeg) / pixels
    # Pillow's scale of JPEG qualities ends where the files may still be larger than the target.
    larger = ", the smallest it can be" if len(jpeg) > len(data) else ""
    panels = [
        (image, f"original, {source.stat().st_size:,} bytes"),
        (decoded, f"aicr-t, {len(data):,} bytes, {measured['bpp']:.3f} bpp, {measured['psnr']:.2f} dB"),
        (jpeg_decoded, f"JPEG, {len(jpeg):,} bytes, {jpeg_bpp:.3f} bpp, {measured['jpeg_psnr']:.2f} dB"),
    ]
    write_image(panel_file, side_by_side(panels))

    print(f"input         {source}: {image.width}x{image.height}, {source.stat().st_size:,} bytes")
    print(f"compressed    {compressed_file}: {len(data):,} bytes, {measured['bpp']:.3f} bpp (quality {quality})")
    print(f"decoded       {decoded_file}: PSNR {measured['psnr']:.2f} dB against the input")
    print(
        f"JPEG          {len(jpeg):,} bytes, {jpeg_bpp:.3f} bpp (quality {jpeg_quality}{larger}): "
        f"PSNR {measured['jpeg_psnr']:.2f} dB"
    )
    print(
        f"time          compress {measured['compress_seconds']:.2f} s, "
        f"decompress {measured['decompress_seconds']:.2f} s (first call included)"
    )
    print(f"side by side  {panel_file}")
    return measured


def psnr(a: Image.Image, b: Image.Image) -> float:
    """Peak signal-to-noise ratio in dB of two 8-bit RGB images of one size (infinite if equal)."""
    difference = np.asarray(a, np.float64) - np.asarray(b, np.float64)
    mse = float(np.mean(difference**2))
    return 10 * math.log10(255**2 / mse) if mse else math.inf


def jpeg_of_size(image: Image.Image, size: int) -> tuple[int, bytes]:
    """The best JPEG of ``image`` (4:2:0, optimised tables) that is not larger than ``size`` bytes.

    Returns its Pillow quality and its bytes; where even the worst quality is larger, that one.
    """
    low, high = 1, 95
    best = (low, _jpeg(image, low))
    while low <= high:
        middle = (low + high) // 2
        data = _jpeg(image, middle)
        if len(data) <= size:
            best, low = (middle, data), middle + 1
        else:
            high = middle - 1
    return best


def side_by_side(panels: list[tuple[Image.Image, str]]) -> Image.Image:
    """Images of one size in a row, each under its label."""
    gap, bar = 8, 32
    width, height = panels[0][0].size
    sheet = Image.new("RGB", (len(panels) * (width + gap) - gap, height + bar), "white")
    draw = ImageDraw.Draw(sheet)
    for index, (image, label) in enumerate(panels):
        left = index * (width + gap)
        points = 18
        while points > 8 and draw.textlength(label, ImageFont.load_default(points)) > width:
            points -= 1
        draw.text((left + width / 2, bar / 2), label, "black", ImageFont.load_default(points), anchor="mm")
        sheet.paste(image, (left, bar))
    return sheet


def _jpeg(image: Image.Image, quality: int) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality, optimize=True)
    return buffer.getvalue()


if __name__ == "__main__":
    sys.exit(main())
