"""Pictures side by side on a sheet, and pictures as files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from cmt.io.files import atomic_write
from cmt.io.png import encode_png
from cmt.pictures.overlay import font_of

_TITLE_PIXELS = 24
_CAPTION_PIXELS = 20
_JPEG_QUALITY = 90


def save_picture(path: Path | str, picture: np.ndarray) -> None:
    """Writes a picture as PNG, or as JPEG where the name ends in .jpg, atomically."""
    with atomic_write(path) as file:
        if Path(path).suffix == ".jpg":
            Image.fromarray(picture).save(file, format="JPEG", quality=_JPEG_QUALITY)
        else:
            file.write(encode_png(picture))


def contact_sheet(
    rows: Sequence[Sequence[np.ndarray]],
    titles: Sequence[str] = (),
    *,
    captions: Sequence[Sequence[str]] = (),
    cell_pixels: int = 240,
    gap_pixels: int = 6,
) -> np.ndarray:
    """Puts pictures in a grid under the titles of its columns.

    Args:
      rows: pictures [*, *, 3] uint8; a row may be shorter than others.
      titles: of the columns; none leaves their line out.
      captions: below the pictures, row by row; none leaves their lines out.
      cell_pixels: a picture is scaled so that its longer side has this many pixels.
      gap_pixels: space around the pictures.

    Returns:
      [H, W, 3] uint8.
    """
    title_pixels = _TITLE_PIXELS if titles else 0
    step = cell_pixels + gap_pixels
    row_step = step + (_CAPTION_PIXELS if captions else 0)
    columns = max(len(titles), *(len(row) for row in rows))
    size = columns * step + gap_pixels, len(rows) * row_step + gap_pixels + title_pixels
    sheet = Image.new("RGB", size, "white")
    draw = ImageDraw.Draw(sheet)
    for column, title in enumerate(titles):
        draw.text((column * step + gap_pixels, 4), title, (0, 0, 0), font_of(15))
    for row, pictures in enumerate(rows):
        top = title_pixels + gap_pixels + row * row_step
        for column, picture in enumerate(pictures):
            cell = _fit(picture, cell_pixels)
            x = gap_pixels + column * step + (cell_pixels - cell.width) // 2
            sheet.paste(cell, (x, top + (cell_pixels - cell.height) // 2))
        for column, caption in enumerate(captions[row] if captions else ()):
            place = gap_pixels + column * step, top + cell_pixels + 2
            draw.text(place, caption, (60, 60, 60), font_of(13))
    return np.asarray(sheet)


def _fit(picture: np.ndarray, side: int) -> Image.Image:
    height, width = picture.shape[:2]
    scale = side / max(height, width)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    smooth = Image.Resampling.LANCZOS if scale < 1 else Image.Resampling.NEAREST
    return Image.fromarray(picture).resize(size, smooth)
