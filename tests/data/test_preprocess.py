from __future__ import annotations

import csv

import numpy as np
import pytest
import tensorflow as tf

from cmt.data.input import preprocess

IMAGES = ("000000129054", "000000184324", "000000397133")
CROP = (641, 641)


def test_sizes_are_those_of_the_reference(shared):
    path = shared / "golden" / "preprocessing" / "resize_sizes.csv"
    graph = tf.function(preprocess.resized_size, reduce_retracing=True)
    with path.open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 20
    for row in rows:
        size = tf.constant([int(row["src_h"]), int(row["src_w"])])
        for crop in (641, 1281):
            expected = [int(row[f"h{crop}_static"]), int(row[f"w{crop}_static"])]
            assert graph(size, (crop, crop)).numpy().tolist() == expected


@pytest.mark.parametrize("name", IMAGES)
def test_images_are_those_of_the_reference(shared, name):
    golden = np.load(shared / "golden" / "preprocessing" / "eval_641.npz")
    encoded = tf.io.read_file(str(shared / "coco_samples" / "images" / f"{name}.jpg"))
    # With the decoder of the reference.
    image = tf.io.decode_jpeg(encoded, channels=3)
    corner = golden[f"{name}/source_crop_uint8_top_left_64"].astype(int)
    same_decoder = np.array_equal(image[:64, :64], corner)
    tolerance = 1e-3 if same_decoder else 3

    padded, size = preprocess.resize_and_pad(image, CROP)
    assert size.numpy().tolist() == golden[f"{name}/resized_height_width"].tolist()
    for number in range(4):
        top, left = golden[f"{name}/crop{number}_top_left"]
        crop = padded[top : top + 64, left : left + 64]
        expected = golden[f"{name}/crop{number}"]
        np.testing.assert_allclose(crop, expected, rtol=0, atol=tolerance)
    rows = golden[f"{name}/row_means"]
    np.testing.assert_allclose(tf.reduce_mean(padded, 1), rows, rtol=0, atol=tolerance)
    assert float(tf.reduce_max(tf.abs(padded[size[0] :] - 127.5))) < 1e-4


@pytest.mark.parametrize("name", IMAGES)
def test_labels_are_those_of_the_reference(shared, name):
    golden = np.load(shared / "golden" / "preprocessing" / "eval_641.npz")
    labels = np.load(shared / "golden" / "coco_labels" / "panoptic_labels.npz")[name]
    size = preprocess.resized_size(tf.constant(labels.shape), CROP)
    resized = preprocess.pad_labels(preprocess.resize_labels(labels, size), CROP)
    np.testing.assert_array_equal(resized, golden[f"{name}/panoptic_label"])


@pytest.mark.parametrize("sizes", [(1, 1, 5, 7), (13, 11, 7, 31), (97, 65, 1, 129)])
def test_label_resize_equals_the_operation_of_tensorflow(sizes):
    height, width, new_height, new_width = sizes
    labels = np.random.default_rng(0).integers(0, 60000, (height, width))
    labels = tf.constant(labels, tf.int32)
    expected = tf.raw_ops.ResizeNearestNeighbor(
        images=labels[tf.newaxis, ..., tf.newaxis],
        size=[new_height, new_width],
        align_corners=True,
    )
    ours = preprocess.resize_labels(labels, tf.constant([new_height, new_width]))
    np.testing.assert_array_equal(ours, expected[0, ..., 0])


def test_a_batch_is_resized_like_its_images():
    images = np.random.default_rng(1).integers(0, 256, (2, 31, 53, 3), np.uint8)
    batch, size = preprocess.resize_and_pad(tf.constant(images), (49, 65))
    assert size.numpy().tolist() == [38, 65]
    assert batch.shape == (2, 49, 65, 3)
    for index in range(2):
        single, _ = preprocess.resize_and_pad(tf.constant(images[index]), (49, 65))
        np.testing.assert_array_equal(batch[index], single)
    # Aligned corners: the corners of the image stay what they are.
    corners = batch.numpy()[:, [0, 37]][:, :, [0, 64]]
    expected = images[:, [0, 30]][:, :, [0, 52]]
    np.testing.assert_allclose(corners, expected, atol=1e-3)


def test_labels_come_back_to_the_image():
    labels = tf.constant([[1, 2, 3, 0], [4, 5, 6, 0], [0, 0, 0, 0]])
    back = tf.function(preprocess.resize_labels_back)
    result = back(labels, tf.constant([2, 3]), tf.constant([4, 5]))
    # Rows 0, 1/3, 2/3, 1 and columns 0, 1/2, 1, 3/2, 2; halves go up.
    expected = [
        [1, 2, 2, 3, 3],
        [1, 2, 2, 3, 3],
        [4, 5, 5, 6, 6],
        [4, 5, 5, 6, 6],
    ]
    np.testing.assert_array_equal(result, expected)
    batch = back(labels[tf.newaxis], tf.constant([2, 3]), tf.constant([4, 5]))
    np.testing.assert_array_equal(batch[0], expected)


def test_the_least_is_one_pixel():
    sizes = {(3, 1000): [1, 33], (1000, 3): [33, 1], (1, 1): [33, 33]}
    for size, expected in sizes.items():
        resized = preprocess.resized_size(tf.constant(size), (33, 33))
        assert resized.numpy().tolist() == expected


def test_a_flip_of_labels_changes_left_and_right_alone():
    labels = tf.constant([[1, 2, 3], [4, 5, 6]])
    for flipped, rows in ((True, [[3, 2, 1], [6, 5, 4]]), (False, labels)):
        for value in (flipped, tf.constant(flipped)):
            same = preprocess.resize_labels(labels, tf.constant([2, 3]), flipped=value)
            np.testing.assert_array_equal(same, rows)
    # Halves go up in the picture as it is seen: first resized, then flipped.
    wide = tf.constant([2, 6])
    plain = preprocess.resize_labels(labels, wide).numpy()
    turned = preprocess.resize_labels(labels, wide, flipped=tf.constant(True))
    np.testing.assert_array_equal(turned, plain[:, ::-1])


def test_padding_is_at_the_bottom_and_right():
    image = preprocess.pad_image(tf.zeros([2, 3, 3]), (4, 7)).numpy()
    assert np.all(image[:2, :3] == 0)
    assert np.all(image[2:] == 127.5) and np.all(image[:, 3:] == 127.5)
    labels = preprocess.pad_labels(tf.ones([2, 3], tf.int32), (4, 7)).numpy()
    assert np.all(labels[:2, :3] == 1)
    assert labels.sum() == 6
