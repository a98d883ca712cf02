"""How fast this machine decodes images, beside the one of a peer's figures.

A peer that cannot be run here was timed on another machine, which decoded 641 to 712
JPEG and 331 to 346 PNG images of 640 x 480 a second with Pillow on one core. The same
is measured here, in the same way: medians of 9 runs of 20 images, by the clock.
"""

from __future__ import annotations

import io
import statistics
import time
from collections.abc import Callable

import numpy as np
from PIL import Image

# Images a second on the peer's machine, the middle of the range of its medians.
PEER_JPEG, PEER_PNG = 676.0, 338.0

_RUNS, _IMAGES = 9, 20


def decoding_rates() -> tuple[float, float]:
    """JPEG and PNG images of 640 x 480 that are decoded a second here."""
    # Once a large block was freed, later ones come from the heap, without the page
    # faults that would be most of the time; so it was for the figures above.
    block = np.ones(32_000_000, np.float32)
    del block
    coarse = np.random.default_rng(0).integers(0, 255, (48, 64, 3), np.uint8)
    photo = Image.fromarray(coarse).resize((640, 480), Image.Resampling.BICUBIC)
    label = Image.fromarray(np.kron(coarse, np.ones((10, 10, 1), np.uint8)))
    return _rate(_encoded(photo, "JPEG", quality=90)), _rate(_encoded(label, "PNG"))


def decoding_speed(rates: tuple[float, float]) -> float:
    """How fast this machine decodes, the peer's being 1: the geometric mean of both.

    Args:
      rates: as from `decoding_rates`.
    """
    jpeg, png = rates
    return statistics.geometric_mean([jpeg / PEER_JPEG, png / PEER_PNG])


def _encoded(image: Image.Image, kind: str, **options: int) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def _rate(content: bytes) -> float:
    def decode() -> None:
        for _ in range(_IMAGES):
            np.asarray(Image.open(io.BytesIO(content)).convert("RGB"))

    for _ in range(2):
        decode()
    return _IMAGES / statistics.median(_seconds(decode) for _ in range(_RUNS))


def _seconds(work: Callable[[], None]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start
