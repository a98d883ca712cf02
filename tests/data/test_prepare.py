"""What becomes of one image, with records that are made for the question."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from cmt.data.input.augment import Augmentation
from cmt.data.input.colour import ColorJitter, Policy
from cmt.data.input.copy_paste import CopyPaste, paste_shares
from cmt.data.input.prepare import Changes, Options, Preparation, record_of
from cmt.data.input.preprocess import resize_labels
from cmt.data.input.targets import unpack
from cmt.data.panoptic.categories import Category
from cmt.data.records.tfrecord import Example

CATEGORIES = [
    Category(1, "cat", True, (0, 0, 0)),
    Category(2, "dog", True, (0, 0, 0)),
    Category(3, "sky", False, (0, 0, 0)),
]
CAT, DOG, SKY = 256, 512, 768
AS_IT_IS = Augmentation(1, 1, 0, 0)


def prepared(
    numbers,
    images,
    labels,
    *,
    changes: Changes,
    seed: int = 1,
    crop=None,
    limit: int = 0,
):
    """[n, h, w, 3] images and their Targets, of some numbers.

    Args:
      numbers: of images in a run.
      images: [R, H, W, 3], those of the records.
      labels: [R, H, W], theirs.
      changes: see `Options`.
      seed: see `Preparation`.
      crop: `crop_size` of `Options`; the size of the images by default.
      limit: `min_thing_pixels` of `Options`.
    """
    images = tf.constant(np.asarray(images), tf.uint8)
    labels = tf.constant(np.asarray(labels), tf.int32)

    def read(number):
        return Example(tf.constant("x"), images[number], labels[number])

    prepare = Preparation(
        read,
        num_records=len(images),
        is_thing=[category.is_thing for category in CATEGORIES],
        shares=paste_shares(changes.copy_paste, CATEGORIES),
        options=Options(crop or tuple(images.shape[1:3]), 8, limit, changes),
        seed=seed,
    )

    @tf.autograph.experimental.do_not_convert
    def one(number):
        image, masks, _ = prepare(number)
        return image, unpack(masks)[:3]

    numbers = tf.constant(numbers, tf.int64)
    if len(numbers) <= 4:  # faster than to make a graph
        rows = [tf.nest.flatten(one(number)) for number in numbers]
        image, *targets = (np.stack(part) for part in zip(*rows, strict=True))
        return image, tuple(targets)
    dataset = tf.data.Dataset.from_tensor_slices(numbers).map(one).batch(len(numbers))
    return next(dataset.as_numpy_iterator())


def picture(size: int = 24, seed: int = 0):
    """A record of noise with two cats and a dog on sky, as lists of one."""
    rng = np.random.default_rng(seed)
    image = rng.integers(30, 200, (1, size, size, 3))
    labels = np.full((1, size, size), SKY)
    labels[0, 2:8, 3:9], labels[0, 12:20, 1:7] = CAT + 1, CAT + 2
    labels[0, 9:15, 14:22] = DOG + 1
    return image, labels


def plain_records(count: int, size: int = 12):
    """Record k is one cat of colour 20 * k + 10."""
    colors = 20 * np.arange(count) + 10
    images = np.tile(colors[:, None, None, None], (1, size, size, 3))
    return images, np.full((count, size, size), CAT + 1)


CHANGES = {
    "view": Changes(Augmentation(0.5, 1.5, 0, 0.5)),
    "jitter": Changes(AS_IT_IS, ColorJitter(brightness=0.4)),
    "policy": Changes(AS_IT_IS, policy=Policy(2, 7)),
    "paste": Changes(AS_IT_IS, copy_paste=CopyPaste(1, 0.4, 0.9, 0.5, 0)),
}


@pytest.mark.parametrize("change", CHANGES)
def test_each_image_of_a_run_has_its_own_changes(change):
    """One record over and over: neighbours differ, and so do the runs of two seeds."""
    numbers = range(16)
    first, targets = prepared(numbers, *picture(), changes=CHANGES[change])
    # Operations without a sign can be drawn twice.
    assert len({image.tobytes() for image in first}) >= 13
    # In whatever order and company an image is made.
    some, _ = prepared([11, 3, 8], *picture(), changes=CHANGES[change])
    np.testing.assert_array_equal(some, first[[11, 3, 8]])
    other, _ = prepared([11, 3, 8], *picture(), changes=CHANGES[change], seed=2)
    assert any(not np.array_equal(a, b) for a, b in zip(some, other, strict=True))
    if change in ("jitter", "policy"):
        untouched, plain = prepared([0], *picture(), changes=Changes(AS_IT_IS))
        np.testing.assert_array_equal(untouched, picture()[0])
        for part, expected in zip(targets, plain, strict=True):
            np.testing.assert_array_equal(part, np.repeat(expected, 16, 0))


def test_pasted_pictures_have_colors_of_their_own():
    """The jitter is drawn for each of the two, over the same range."""
    images, labels = plain_records(1)
    images[:] = 100
    pasted = CopyPaste(0.5, 0.5, 0.5, 1, 1)
    jitter = ColorJitter(brightness=0.4)
    results, _ = prepared(
        range(60), images, labels, changes=Changes(AS_IT_IS, jitter, copy_paste=pasted)
    )
    colors = [np.unique(result.round(2)) for result in results]
    assert {len(found) for found in colors} == {1, 2}
    both = np.array([found for found in colors if len(found) == 2])
    assert both.min() >= 60 - 1e-3
    assert both.max() <= 140 + 1e-3
    assert np.ptp(both[:, 0]) > 30 < np.ptp(both[:, 1])


def test_partners_are_any_records():
    """Every pair of seven records comes, also an image with itself, from any seed."""
    count = 7
    images, labels = plain_records(count)
    pasted = CopyPaste(1, 1, 1, 1, 1)
    numbers = np.arange(90 * count)
    results, _ = prepared(
        numbers, images, labels, changes=Changes(AS_IT_IS, copy_paste=pasted)
    )
    partners = ((results[:, 0, 0, 0] - 10) / 20).astype(int)
    np.testing.assert_array_equal(results, images[partners])
    own = np.array([record_of(tf.constant(n), 1, count).numpy() for n in numbers])
    pairs = np.bincount(own * count + partners, minlength=count**2)
    assert pairs.min() >= 4
    np.testing.assert_allclose(np.bincount(partners), 90, rtol=0.3)
    assert np.mean(partners[1:] == partners[:-1]) < 0.2


def test_whether_is_drawn_for_each_image_and_with_its_probability():
    images, labels = plain_records(1)
    images = np.tile(np.arange(12)[:, None, None] * 10, (1, 1, 12, 3))
    pasted = CopyPaste(0.3, 0.5, 0.5, 1, 1)
    changes = Changes(Augmentation(0.5, 1.0, 0, 0), copy_paste=pasted)
    results, (_, mask_ids, classes) = prepared(
        range(600), images, labels, changes=changes
    )
    happened = (classes > 0).sum(1) == 2
    assert 0.25 < happened.mean() < 0.35
    switches = np.mean(happened[1:] != happened[:-1])
    assert 0.34 < switches < 0.5  # 2 * 0.3 * 0.7 where neighbours do not matter
    # Nor does the scale. Without paste it is the share of what is not padding.
    height = (mask_ids[:, :, 0] == 0).sum(1)
    plain, (_, seen, _) = prepared(
        range(600), images, labels, changes=Changes(changes.augmentation)
    )
    height = (seen[:, :, 0] == 0).sum(1)
    assert abs(np.corrcoef(height, happened)[0, 1]) < 0.12
    np.testing.assert_array_equal(results[~happened], plain[~happened])


def test_only_what_the_config_names_is_pasted():
    pasted = CopyPaste(1, 0.5, 0.5, 1, 0, things="dog")
    changes = Changes(AS_IT_IS, copy_paste=pasted)
    # A second dog, and no third cat.
    _, (_, _, classes) = prepared(range(4), *picture(), changes=changes)
    assert np.all((classes == 1).sum(1) <= 2)
    assert np.any((classes == 2).sum(1) == 2)


def test_pasted_pictures_are_as_large_as_the_config_says():
    """24 pixels at 0.25 to 0.42 of their size: 6 to 10."""
    images, labels = plain_records(2, 24)
    pasted = CopyPaste(1, 0.25, 0.42, 1)
    changes = Changes(AS_IT_IS, copy_paste=pasted)
    _, (_, mask_ids, classes) = prepared(range(60), images, labels, changes=changes)
    smaller = np.minimum((mask_ids == 0).sum((1, 2)), (mask_ids == 1).sum((1, 2)))
    assert np.all((classes > 0).sum(1) == 2)
    assert set(np.sqrt(smaller)) == {6, 7, 8, 9, 10}


@pytest.mark.parametrize("flip", [0, 1])
def test_pasted_pictures_are_flipped_as_often_as_others(flip):
    """A dog in the left half comes to lie on itself, whether flipped or not."""
    size = 24
    images = np.full((1, size, size, 3), 50)
    labels = np.full((1, size, size), SKY)
    images[:, :, : size // 2], labels[:, :, : size // 2] = 200, DOG + 1
    pasted = CopyPaste(1, 1, 1, thing_probability=1)
    changes = Changes(AS_IT_IS._replace(flip_probability=flip), copy_paste=pasted)
    results, (semantic, _, classes) = prepared(
        range(12), images, labels, changes=changes
    )
    dog = np.arange(size) >= size // 2 if flip else np.arange(size) < size // 2
    np.testing.assert_array_equal(semantic == 2, np.tile(dog, (12, size, 1)))
    np.testing.assert_array_equal(results[..., 0] == 200, semantic == 2)
    # The dog below is covered.
    np.testing.assert_array_equal(np.sort(classes, 1)[:, -3:], [[0, 2, 3]] * 12)


@pytest.mark.parametrize("offset", [-1, 0, 1])
def test_small_things_are_counted_in_pixels_of_the_network(offset):
    """From half the size, each pixel stands for four: 24 cat pixels for 96."""
    image = np.zeros((1, 20, 20, 3))
    labels = np.full((1, 20, 20), SKY)
    labels[0, 4:8, 4:10] = CAT + 1
    for limit, size in ((96, 40), (24, 20)):
        _, (semantic, _, classes) = prepared(
            [0],
            image,
            labels,
            changes=Changes(AS_IT_IS),
            crop=(size, size),
            limit=limit + offset,
        )
        kept = offset <= 0
        assert ((semantic == 1).sum() > 0) == kept
        assert classes[0].tolist() == ([3, 1] if kept else [3, 0]) + [0] * 6


@pytest.mark.parametrize("offset", [-1, 0, 1])
def test_small_things_are_counted_where_images_shrink(offset):
    """And where only the padding makes the crop larger than the view."""
    image = np.zeros((1, 40, 40, 3))
    labels = np.full((1, 40, 40), SKY)
    labels[0, 4:17, 5:21] = CAT + 1
    small = resize_labels(tf.constant(labels[0]), tf.constant([20, 20])).numpy()
    count = int((small == CAT + 1).sum())
    assert 40 < count < 60
    _, (_, mask_ids, classes) = prepared(
        [0],
        image,
        labels,
        changes=Changes(AS_IT_IS),
        crop=(20, 30),
        limit=count + offset,
    )
    assert (1 in classes[0]) == (offset <= 0)
    assert (mask_ids[0, :, 20:] == -1).all()


def test_what_is_covered_counts_no_more():
    """Areas and limits are those of what is left to see below pasted things."""
    size = 24
    image = np.zeros((1, size, size, 3))
    labels = np.full((1, size, size), SKY)
    labels[0, 2:8, 2:8], labels[0, 14:22, 12:22] = CAT + 1, DOG + 1
    changes = Changes(AS_IT_IS, copy_paste=CopyPaste(1, 1, 1.6, thing_probability=1))
    limit = 30
    everything, vanished = [], 0
    for min_pixels in (0, limit):
        _, (semantic, mask_ids, classes) = prepared(
            range(40), image, labels, changes=changes, limit=min_pixels
        )
        for one, ids, kinds in zip(semantic, mask_ids, classes, strict=True):
            count = int((kinds > 0).sum())
            assert set(np.unique(ids)) - {-1} == set(range(count))
            np.testing.assert_array_equal(kinds[ids[ids >= 0]], one[ids >= 0])
            areas = np.bincount(ids[ids >= 0], minlength=count)
            things = areas[kinds[:count] < 3]
            if min_pixels:
                assert np.all(things >= limit)
                expected = [a for a in everything.pop(0) if a >= limit]
                assert sorted(things.tolist()) == sorted(expected)
            else:
                everything.append(things.tolist())
                vanished += len(things) < 4
    assert not everything
    assert vanished > 5


def test_every_epoch_has_an_order_of_its_own():
    count = 50
    numbers = tf.range(4 * count, dtype=tf.int64)
    orders = {}
    for seed in (1, 2):
        order = tf.map_fn(lambda n, s=seed: record_of(n, s, count), numbers).numpy()
        for epoch, records in enumerate(order.reshape(4, count)):
            assert sorted(records) == list(range(count))
            orders[seed, epoch] = records
    for key, order in orders.items():
        for other, records in orders.items():
            assert key == other or np.mean(order == records) < 0.15


def test_a_view_of_labels_that_grow_is_the_view_of_labels():
    """What is numbered before it grows is what is numbered after."""
    image, labels = picture(20)
    for scale in (0.7, 1.9):
        _, (semantic, mask_ids, classes) = prepared(
            range(2),
            image,
            labels,
            changes=Changes(Augmentation(scale, scale, 0, 0)),
            crop=(33, 33),
        )
        pasted = CopyPaste(1, thing_probability=0)
        _, other = prepared(
            range(2),
            image,
            labels,
            crop=(33, 33),
            changes=Changes(Augmentation(scale, scale, 0, 0), copy_paste=pasted),
        )
        np.testing.assert_array_equal(semantic, other[0])
        np.testing.assert_array_equal(mask_ids, other[1])
        np.testing.assert_array_equal(classes, other[2])
