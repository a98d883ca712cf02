from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from cmt.data.input.targets import number_masks, unpack
from cmt.errors import InputError

# Classes 1 and 2 are things, 3 and 4 stuff.
IS_THING = [True, True, False, False]


def make_targets(labels, **options):
    """The targets of one label map."""
    return unpack(number_masks(labels, **options))


def label(number: int, instance: int = 0) -> int:
    return number * 256 + instance


def test_by_hand():
    labels = tf.constant(
        [
            [label(3), label(3), label(2, 1)],
            [label(1, 2), 0, label(2)],  # the last is crowd
            [label(1, 1), label(3, 9), label(1, 2)],  # instances of stuff are one
        ]
    )
    targets = make_targets(labels, is_thing=IS_THING, max_masks=6)
    assert targets.semantic.numpy().tolist() == [[3, 3, 2], [1, 0, 2], [1, 3, 1]]
    assert targets.mask_ids.numpy().tolist() == [[0, 0, 1], [2, -1, -1], [3, 0, 2]]
    assert targets.mask_classes.numpy().tolist() == [3, 2, 1, 1, 0, 0]


def test_too_many_masks_drop_the_smallest_to_void():
    labels = tf.constant(
        [[label(1, 1), label(2, 5), label(2, 5), label(4), label(4), label(4)]]
    )
    targets = make_targets(labels, is_thing=IS_THING, max_masks=2)
    assert targets.mask_ids.numpy().tolist() == [[-1, 0, 0, 1, 1, 1]]
    assert targets.semantic.numpy().tolist() == [[0, 2, 2, 4, 4, 4]]
    assert targets.mask_classes.numpy().tolist() == [2, 4]


@pytest.mark.parametrize("value", [0, label(1)])
def test_an_image_without_masks(value):
    targets = make_targets(tf.fill([2, 3], value), is_thing=IS_THING, max_masks=3)
    assert np.all(targets.mask_ids.numpy() == -1)
    assert targets.semantic.numpy().tolist() == [[value // 256] * 3] * 2
    assert targets.mask_classes.numpy().tolist() == [0, 0, 0]


def test_numbers_follow_the_reference(shared):
    """Things are numbered by first appearance, also where stuff stands between."""
    golden = np.load(shared / "golden" / "preprocessing" / "eval_641.npz")
    is_thing = [True] * 80 + [False] * 53
    for name in ("000000129054", "000000184324", "000000397133"):
        labels = tf.constant(golden[f"{name}/panoptic_label"])
        targets = make_targets(labels, is_thing=is_thing, max_masks=128)
        mask_ids, classes = targets.mask_ids.numpy(), targets.mask_classes.numpy()
        things = np.flatnonzero((classes >= 1) & (classes <= 80))
        thing_ids = np.full(129, -1)
        thing_ids[things] = np.arange(len(things))
        expected = golden[f"{name}/thing_id_mask"]
        np.testing.assert_array_equal(thing_ids[mask_ids], expected)
        expected = golden[f"{name}/thing_id_class"][: len(things)]
        np.testing.assert_array_equal(classes[things], expected)
        np.testing.assert_array_equal(targets.semantic, labels // 256)


def test_shapes_are_static():
    @tf.function(input_signature=[tf.TensorSpec([5, 7], tf.int32)])
    def shapes(labels):
        targets = make_targets(labels, is_thing=IS_THING, max_masks=11)
        assert [list(part.shape) for part in targets[:3]] == [[5, 7], [5, 7], [11]]
        return targets.mask_classes

    shapes(tf.zeros([5, 7], tf.int32))


def test_small_things_become_void_and_small_stuff_stays():
    labels = tf.constant(
        [[label(1, 1), label(1, 2), label(1, 2), label(3), label(2), 0]]
    )
    masks = number_masks(labels, is_thing=IS_THING, max_masks=3, min_thing_pixels=2)
    targets = unpack(masks)
    # Crowd (the last but one) is no thing of its own.
    assert targets.semantic.numpy().tolist() == [[0, 1, 1, 3, 2, 0]]
    assert targets.mask_ids.numpy().tolist() == [[-1, 0, 0, 1, -1, -1]]
    assert targets.mask_classes.numpy().tolist() == [1, 3, 0]


def test_other_divisors_and_the_largest_numbers():
    """255 masks of class 255 fit into what the pipeline carries."""
    labels = tf.range(1, 256)[tf.newaxis] + 255 * 512
    masks = number_masks(labels, is_thing=[True] * 255, max_masks=255, divisor=512)
    assert masks.pixels.dtype == tf.uint16
    targets = unpack(masks)
    assert targets.mask_ids.numpy().tolist() == [list(range(255))]
    assert np.all(targets.semantic.numpy() == 255)
    assert np.all(targets.mask_classes.numpy() == 255)


@pytest.mark.parametrize("count", [5, 6, 7])
def test_things_of_exactly_the_limit_stay(count):
    """Six pixels are enough, five are not, however they lie; also by halves."""
    for class_ in (1, 2):
        labels = np.full(30, label(3))
        labels[[29, 0, 7, 9, 11, 20, 3][:count]] = label(class_, 4)
        for limit in (6, 6.0, 5.5, tf.constant(5.001)):
            masks = number_masks(
                tf.constant(labels.reshape(5, 6), tf.int32),
                is_thing=IS_THING,
                max_masks=4,
                min_thing_pixels=limit,
            )
            targets = unpack(masks)
            kept = count >= 6
            assert (targets.semantic.numpy() == class_).sum() == count * kept
            assert (class_ in targets.mask_classes.numpy()) == kept
            assert np.sum(targets.mask_ids.numpy() < 0) == count * (not kept)


def test_the_largest_masks_keep_the_order_in_which_they_appear():
    """Of four masks, the smallest goes; the rest are not sorted by size."""
    sizes = {label(1, 1): 3, label(3): 9, label(2, 1): 1, label(1, 2): 5}
    labels = np.repeat(list(sizes), list(sizes.values()))[np.newaxis]
    labels = tf.constant(labels, tf.int32)
    targets = make_targets(labels, is_thing=IS_THING, max_masks=3)
    assert targets.mask_classes.numpy().tolist() == [1, 3, 1]
    expected = np.repeat([0, 1, -1, 2], [3, 9, 1, 5])
    assert targets.mask_ids.numpy()[0].tolist() == expected.tolist()


def test_crowd_and_void_take_no_place_among_the_masks():
    """However large they are, and also where there are too many masks."""
    areas = [(label(1), 20), (0, 30), (label(2, 3), 2), (label(4), 1)]
    labels = np.repeat([value for value, _ in areas], [count for _, count in areas])
    for max_masks, ids in ((2, [-1, -1, 0, 1]), (1, [-1, -1, 0, -1])):
        targets = make_targets(
            tf.constant(labels[np.newaxis], tf.int32),
            is_thing=IS_THING,
            max_masks=max_masks,
        )
        expected = np.repeat(ids, [count for _, count in areas])
        assert targets.mask_ids.numpy()[0].tolist() == expected.tolist()
        assert targets.mask_classes.numpy().tolist() == [2, 4][:max_masks]


def test_stuff_is_as_large_as_all_its_parts():
    """Six pixels in three parts are more than five in one."""
    parts = [label(3, 1), label(3, 2), label(3)] * 2
    labels = tf.constant([[*parts, *[label(1, 1)] * 5, label(2, 1)]], tf.int32)
    targets = make_targets(labels, is_thing=IS_THING, max_masks=1)
    assert targets.mask_classes.numpy().tolist() == [3]
    assert targets.mask_ids.numpy()[0].tolist() == [0] * 6 + [-1] * 6


def test_classes_have_eight_bits():
    labels = tf.constant([[255 * 256, 256]])
    masks = number_masks(labels, is_thing=[False] * 255, max_masks=2)
    assert (masks.pixels.numpy() // 256).tolist() == [[255, 1]]
    with pytest.raises(InputError, match="at most 255 categories.*got 256"):
        number_masks(labels, is_thing=[False] * 256, max_masks=2)
