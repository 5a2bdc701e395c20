"""``python -m aicr_ext.demo``: one photograph through the codec, and beside it JPEG at the same file size."""

from __future__ import annotations

import argparse
import io
import sys
import time
from pathlib import Path

import numpy as np
from PIL import Image

import aicr_ext
from aicr_ext.errors import AicrError
from aicr_ext.evaluate.metrics import psnr
from aicr_ext.files import atomic_write
from aicr_ext.images import read_image, write_image
from aicr_ext.panels import side_by_side

__all__ = ["jpeg_of_size", "main", "run"]


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
        "psnr": psnr(np.asarray(decoded), np.asarray(image)),
        "jpeg_bytes": len(jpeg),
        "jpeg_psnr": psnr(np.asarray(jpeg_decoded), np.asarray(image)),
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


def _jpeg(image: Image.Image, quality: int) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality, optimize=True)
    return buffer.getvalue()


if __name__ == "__main__":
    sys.exit(main())
