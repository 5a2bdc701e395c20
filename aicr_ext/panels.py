"""Pictures side by side and below one another, with labels."""

from __future__ import annotations

from collections.abc import Sequence

from PIL import Image, ImageDraw, ImageFont

__all__ = ["fitting_font", "side_by_side", "stacked"]


def side_by_side(panels: Sequence[tuple[Image.Image, str]]) -> Image.Image:
    """Images of one size in a row, each under its label."""
    gap, bar = 8, 32
    width, height = panels[0][0].size
    sheet = Image.new("RGB", (len(panels) * (width + gap) - gap, height + bar), "white")
    draw = ImageDraw.Draw(sheet)
    for index, (image, label) in enumerate(panels):
        left = index * (width + gap)
        font = fitting_font(draw, label, width, largest=18, smallest=8)
        draw.text((left + width / 2, bar / 2), label, "black", font, anchor="mm")
        sheet.paste(image, (left, bar))
    return sheet


def stacked(rows: Sequence[Image.Image]) -> Image.Image:
    """Images below one another on white, as wide as the widest."""
    sheet = Image.new("RGB", (max(row.width for row in rows), sum(row.height for row in rows)), "white")
    top = 0
    for row in rows:
        sheet.paste(row, (0, top))
        top += row.height
    return sheet


def fitting_font(
    draw: ImageDraw.ImageDraw, text: str, width: int, *, largest: int, smallest: int
) -> ImageFont.FreeTypeFont:
    """The default font, as large as ``text`` fits into ``width`` pixels; sizes in points."""
    points = largest
    while points > smallest and draw.textlength(text, ImageFont.load_default(points)) > width:
        points -= 1
    return ImageFont.load_default(points)
