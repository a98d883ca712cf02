"""Random numbers of training: functions of seed, step and place."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from cmt.layers.conv import Dropout, DropPath
from cmt.losses.contrastive import sample_pixels
from cmt.random_numbers import drawn_from, uniform


def draws(seed, images=6, first=0, shapes=((5,), (1, 1), (3, 7))):
    with drawn_from(tf.constant(seed), first_image=first):
        return [uniform(images, shape).numpy() for shape in shapes]


def test_the_same_of_the_same_and_others_of_others():
    expected = draws([3, 11])
    for one, two in zip(expected, draws([3, 11]), strict=True):
        np.testing.assert_array_equal(one, two)
    for other in ([3, 12], [4, 11], [11, 3]):
        for one, two in zip(expected, draws(other), strict=True):
            assert not np.any(one == two)
    first, second = draws([3, 11], shapes=((5,), (5,)))
    assert not np.any(first == second)
    # Each image has numbers of its own.
    assert len(np.unique(np.concatenate([d.ravel() for d in expected]))) == 6 * 27


@pytest.mark.parametrize("compiled", [False, True])
def test_parts_of_a_batch_are_the_batch(compiled):
    """However it is dealt out; compilers draw others, for all alike."""

    def in_graph(images):
        @tf.function(jit_compile=compiled)
        def drawn(first):
            with drawn_from(tf.constant([3, 11]), first_image=first):
                return [uniform(images, shape) for shape in ((5,), (1, 1), (3, 7))]

        return drawn

    whole = in_graph(6)(tf.constant(0, tf.int64))
    part = in_graph(2)
    parts = [part(tf.constant(first, tf.int64)) for first in (0, 2, 4)]
    for expected, *found in zip(whole, *parts, strict=True):
        np.testing.assert_array_equal(np.concatenate(found), expected)
    assert compiled or np.all(whole[0] == draws([3, 11])[0])


def test_they_are_uniform():
    (numbers,) = draws([1, 2], images=40, shapes=((999,),))
    assert numbers.min() >= 0 and numbers.max() < 1
    count, _ = np.histogram(numbers, bins=20, range=(0, 1))
    np.testing.assert_allclose(count, numbers.size / 20, rtol=0.1)
    np.testing.assert_allclose(np.corrcoef(numbers[::2].ravel(), numbers[1::2].ravel()),
                               np.eye(2), atol=0.03)  # fmt: skip


def test_without_a_source_every_call_draws_anew():
    assert not np.any(uniform(2, [9]).numpy() == uniform(2, [9]).numpy())


@pytest.mark.parametrize(
    "layer", [Dropout(0.4), DropPath(0.4)], ids=["dropout", "drop_path"]
)
def test_what_is_dropped_is_a_function_of_the_step(layer):
    inputs = tf.ones([50, 3, 2, 4])

    def dropped(step):
        with drawn_from(tf.constant([0, step])):
            return layer(inputs, training=True).numpy()

    first, again, other = dropped(1), dropped(1), dropped(2)
    np.testing.assert_array_equal(first, again)
    assert np.any(first != other)
    assert set(np.unique(first)) == {0, np.float32(1 / 0.6)}
    share = np.mean(first == 0)
    assert 0.2 < share < 0.6
    of_image = first.reshape(50, -1)
    assert (layer.name.startswith("drop_path")) == bool(
        np.all(of_image == of_image[:, :1])
    )


def test_sampled_pixels_are_a_function_of_the_step():
    ids = tf.tile(tf.range(4), [25])[tf.newaxis]
    areas, one = tf.fill([1, 4], 25.0), tf.ones([1, 100])

    def sampled(step):
        with drawn_from(tf.constant([0, step])):
            found = sample_pixels(ids, areas, one, num_pixels=20, power=0.5)
        return sorted(found.numpy()[0])

    assert sampled(5) == sampled(5) != sampled(6)
    assert len(set(sampled(5))) == 20
