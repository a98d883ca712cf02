"""Image files -> pixels in graphs, upright as their EXIF orientation says.

Bit for bit the pixels that `cmt.io.images` gives, for GRAPH_FORMATS.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import tensorflow as tf

from cmt.io.images import JPEG_HEAD, ORIENTATION_TAG
from cmt.io.png import HEAD, MAX_PIXELS, MAX_SIDE

# TensorFlow decodes GIF too, but all frames of it, however many: no limit holds there.
GRAPH_FORMATS = ("JPEG", "PNG")
_HEADS = (JPEG_HEAD, HEAD)
# As Pillow decodes, bit for bit; TensorFlow's default is off by up to 20 grey levels.
JPEG_DCT = "INTEGER_ACCURATE"
# After a head, the length and the name of the first chunk come width and height.
_PNG_SIZE_END = 24
_APP1, _FILL = 0xE1, 0xFF
# Markers that may stand before the pixels' header: APP0 to APP15, comments, tables.
_BEFORE_EXIF = (*range(0xE0, 0xF0), 0xFE, 0xDB, 0xC4, _FILL)
_EXIF = b"Exif\0\0"
_LONG = 4
_ENTRY_BYTES = 12
# More than a file has segments in front of its EXIF.
_MAX_SEGMENTS = 64
# Room behind the end, so that what is read there is 0.
_ROOM = 16


def decode_image(encoded: tf.Tensor, index: tf.Tensor | int = 0) -> tf.Tensor:
    """Decodes a JPEG or PNG file.

    Args:
      encoded: [] string, the file.
      index: of the image in its batch, for messages.

    Returns:
      [H, W, 3] uint8 RGB, turned as the EXIF of a JPEG says; grey and palettes become
      RGB, opacity is dropped, of 16 bits the upper 8 are kept.

    Raises:
      tf.errors.InvalidArgumentError: it is neither, damaged, or has too many pixels.
    """
    is_jpeg, is_png = (tf.strings.substr(encoded, 0, len(h)) == h for h in _HEADS)
    rule = f"an image must be a {' or '.join(GRAPH_FORMATS)} file"
    length = tf.strings.length(encoded)
    got = [f"{rule}; got another at index", index, "with bytes", length]
    encoded = checked(encoded, is_jpeg | is_png, got)
    none = tf.zeros([2], tf.int32)
    size = _unless_it_fails(functools.partial(_declared_size, is_jpeg), encoded, none)
    got = [f"{rule} that is whole; got a damaged one at index", index]
    encoded = checked(encoded, tf.reduce_all(size > 0), [*got, "with bytes", length])
    pixels = tf.reduce_prod(tf.cast(size, tf.int64))
    fits = (pixels <= MAX_PIXELS) & (tf.reduce_max(size) <= MAX_SIDE)
    most = f"an image must have at most {MAX_PIXELS} pixels and {MAX_SIDE} a side"
    too_large = [f"{most}; got height and width", size, "at index", index]
    encoded = checked(encoded, fits, too_large)
    none = tf.zeros([0, 0, 3], tf.uint8)
    image = _unless_it_fails(functools.partial(_decode, is_jpeg), encoded, none)
    return checked(image, tf.size(image) > 0, [*got, "with bytes", length])


def checked(value: tf.Tensor, condition: tf.Tensor, told: list[Any]) -> tf.Tensor:
    """`value`, or an error at run time that quotes `told` unless the condition holds.

    It quotes numbers only: TensorFlow cannot raise errors that quote arbitrary bytes.
    """
    # What depends on the result waits for the check; none is made where it holds now.
    check = tf.debugging.Assert(condition, told)
    with tf.control_dependencies([] if check is None else [check]):
        return tf.identity(value)


def _unless_it_fails(
    function: Callable[[tf.Tensor], tf.Tensor], encoded: tf.Tensor, otherwise: tf.Tensor
) -> tf.Tensor:
    """`function(encoded)`, or `otherwise` where an operation in it raises an error.

    Else the error would reach the client, and decoders name no index. Of TensorFlow's
    operations only data sets can go on after an error.
    """
    options = tf.data.Options()
    # Rewriting would take longer than the one element.
    options.experimental_optimization.apply_default_optimizations = False
    options.autotune.enabled = False
    results = tf.data.Dataset.from_tensors(encoded).map(function).ignore_errors()
    results = results.concatenate(tf.data.Dataset.from_tensors(otherwise)).take(1)
    return results.with_options(options).get_single_element()


def _declared_size(is_jpeg: tf.Tensor, encoded: tf.Tensor) -> tf.Tensor:
    """Height and width, [2] int32, of the header; not above 0 where it is damaged."""

    def of_png() -> tf.Tensor:
        padded = tf.strings.join([encoded, b"\0" * _PNG_SIZE_END])
        codes = _codes(tf.strings.substr(padded, _PNG_SIZE_END - 8, 8))
        width_and_height = _number(tf.reshape(codes, [2, 4]), False)
        return width_and_height[::-1]

    return tf.cond(is_jpeg, lambda: tf.image.extract_jpeg_shape(encoded)[:2], of_png)


def _decode(is_jpeg: tf.Tensor, encoded: tf.Tensor) -> tf.Tensor:
    def jpeg() -> tf.Tensor:
        image = tf.io.decode_jpeg(encoded, channels=3, dct_method=JPEG_DCT)
        return turn_upright(image, jpeg_orientation(encoded))

    return tf.cond(is_jpeg, jpeg, lambda: tf.io.decode_png(encoded, channels=3))


def turn_upright(image: tf.Tensor, orientation: tf.Tensor) -> tf.Tensor:
    """Turns and mirrors [H, W, 3] pixels as an EXIF orientation, 1 to 8, says."""

    def where(orientations: tuple[int, ...], change, image: tf.Tensor) -> tf.Tensor:
        applies = tf.reduce_any(orientation == tf.constant(orientations))
        return tf.cond(applies, lambda: change(image), lambda: image)

    image = where((5, 6, 7, 8), lambda image: tf.transpose(image, [1, 0, 2]), image)
    image = where((2, 3, 6, 7), lambda image: image[:, ::-1], image)
    image = where((3, 4, 7, 8), lambda image: image[::-1], image)
    return tf.ensure_shape(image, [None, None, 3])


def jpeg_orientation(encoded: tf.Tensor) -> tf.Tensor:
    """The EXIF orientation, [] int32 of 1 to 8, of the bytes of a JPEG; 1 for none.

    It follows the segments to the one of EXIF (ITU-T T.81, annex B; EXIF 2.3, 4.5.4)
    and looks the tag up in its first directory (TIFF 6.0, section 2).
    """
    padded = tf.strings.join([encoded, b"\0" * _ROOM])
    end = tf.strings.length(encoded)

    def at_marker(place: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        """Of the segment there: marker, length, and whether it is that of EXIF."""
        head = tf.strings.substr(padded, place, 4 + len(_EXIF))
        codes = tf.ensure_shape(_codes(head), [4 + len(_EXIF)])
        is_exif = (codes[1] == _APP1) & (tf.strings.substr(head, 4, 6) == _EXIF)
        marker = tf.where(codes[0] == _FILL, codes[1], 0)
        return marker, _number(codes[2:4], False), is_exif & (marker != 0)

    def goes_on(place: tf.Tensor) -> tf.Tensor:
        marker, _, is_exif = at_marker(place)
        return tf.reduce_any(marker == tf.constant(_BEFORE_EXIF)) & ~is_exif

    def following(place: tf.Tensor) -> tf.Tensor:
        marker, length, _ = at_marker(place)
        return tf.minimum(place + tf.where(marker == _FILL, 1, 2 + length), end)

    (place,) = tf.while_loop(
        goes_on, lambda p: (following(p),), (2,), maximum_iterations=_MAX_SEGMENTS
    )
    _, length, is_exif = at_marker(place)
    start = place + 4 + len(_EXIF)

    def found() -> tf.Tensor:
        inside = tf.maximum(tf.minimum(length - 2 - len(_EXIF), end - start), 0)
        return _orientation_of_exif(tf.strings.substr(padded, start, inside))

    return tf.cond(is_exif, found, lambda: 1)


def _orientation_of_exif(exif: tf.Tensor) -> tf.Tensor:
    """The orientation that a TIFF header and its first directory give; else 1."""
    size = tf.strings.length(exif)
    padded = tf.strings.join([exif, b"\0" * _ROOM])
    little = tf.strings.substr(padded, 0, 2) == b"II"

    def number(codes: tf.Tensor) -> tf.Tensor:
        return tf.where(little, _number(codes, True), _number(codes, False))

    # An offset of 2**31 and more is a negative one here.
    first = number(tf.ensure_shape(_codes(tf.strings.substr(padded, 4, 4)), [4]))
    first = tf.where((first < 0) | (first > size), size, first)
    count = number(tf.ensure_shape(_codes(tf.strings.substr(padded, first, 2)), [2]))
    start = tf.minimum(first + 2, size)
    there = tf.minimum(count, (size - start) // _ENTRY_BYTES)
    directory = tf.strings.substr(padded, start, there * _ENTRY_BYTES)
    entries = tf.reshape(_codes(directory), [-1, _ENTRY_BYTES])
    short = number(entries[:, 8:10])
    values = tf.where(number(entries[:, 2:4]) == _LONG, number(entries[:, 8:]), short)
    is_tag = number(entries[:, :2]) == ORIENTATION_TAG
    possible = is_tag & (values >= 1) & (values <= 8)
    return tf.reduce_max(tf.concat([[1], tf.where(possible, values, 1)], axis=0))


def _codes(text: tf.Tensor) -> tf.Tensor:
    """[] string -> its bytes, [length] int32."""
    return tf.cast(tf.io.decode_raw(text, tf.uint8), tf.int32)


def _number(codes: tf.Tensor, little: bool) -> tf.Tensor:
    """[..., K] bytes -> [...] int32, little or big endian."""
    powers = range(codes.shape[-1]) if little else reversed(range(codes.shape[-1]))
    weights = tf.constant([1 << (8 * p) if p < 4 else 0 for p in powers], tf.int64)
    return tf.cast(tf.reduce_sum(tf.cast(codes, tf.int64) * weights, -1), tf.int32)
