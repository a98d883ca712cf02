"""Random numbers of training, as functions of a seed, the step and the place alone.

So a run that is stopped and continued draws what it would have drawn, and so do one
device with a large batch and several with their parts of it. The place is the image in
the batch of all devices, and the layer or loss that draws, in the order of the calls.
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
import threading
from collections.abc import Iterator, Sequence

import tensorflow as tf

_PHILOX = 1
_BLOCK = 4  # Numbers that Philox makes from one value of its counter.

_local = threading.local()  # Replicas of a strategy run in threads of their own.


@dataclasses.dataclass
class _Source:
    """What `uniform` draws from.

    Attributes:
      key: [1] uint64, which Philox takes; a function of the seed.
      counter: [2] uint64, the lower half first, where the sequence of a key begins.
      first_image: [2] uint64, the place of the first image in the batch of all devices,
        and 0.
      draws: how often was drawn.
    """

    key: tf.Tensor
    counter: tf.Tensor
    first_image: tf.Tensor
    draws: int = 0


@contextlib.contextmanager
def drawn_from(seed: tf.Tensor, *, first_image: tf.Tensor | int = 0) -> Iterator[None]:
    """Makes `uniform` depend on these alone, for the calls inside.

    Args:
      seed: [2] integers, such as the seed of a run and its step.
      first_image: place of the first image in the batch of all devices.
    """
    before = getattr(_local, "source", None)
    key, counter = tf.raw_ops.StatelessRandomGetKeyCounter(seed=seed)
    first_image = tf.stack([tf.cast(first_image, tf.uint64), 0])
    _local.source = _Source(key, counter, first_image)
    try:
        yield
    finally:
        _local.source = before


def uniform(num_images: tf.Tensor | int, shape: Sequence[int]) -> tf.Tensor:
    """Draws numbers from 0 to 1, without 1, for each image.

    Outside `drawn_from` they are TensorFlow's own, and others at every call.

    Args:
      num_images: B, may be a tensor.
      shape: of the numbers of one image, known.

    Returns:
      [B, *shape] float32.
    """
    source = getattr(_local, "source", None)
    if source is None:
        return tf.random.uniform([num_images, *shape])
    count = math.prod(shape)
    blocks = math.ceil(count / _BLOCK)
    # A draw has a sequence of its own: the upper half of the counter tells them apart.
    # The numbers of all images are one sequence, of which this is a part.
    draw = tf.constant([0, source.draws], tf.uint64)
    skipped = source.first_image * tf.constant(blocks, tf.uint64)
    source.draws += 1
    numbers = tf.raw_ops.StatelessRandomUniformV2(
        shape=tf.stack([num_images, blocks * _BLOCK]),
        key=source.key,
        counter=source.counter + draw + skipped,
        alg=_PHILOX,
    )
    return tf.reshape(numbers[:, :count], [num_images, *shape])
