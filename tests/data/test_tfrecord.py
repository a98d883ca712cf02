from __future__ import annotations

import io

import numpy as np
import tensorflow as tf
from PIL import Image

from cmt.data.records.reader import decode_example
from cmt.data.records.tfrecord import encode_example, frame
from tests.data.records import read_records


def test_records_are_read_by_tensorflow(tmp_path):
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (7, 11, 3), np.uint8)
    labels = rng.integers(0, 65536, (7, 11))
    labels[0, 0] = 65535
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "PNG")
    record = encode_example(
        name="folder/ä", image=buffer.getvalue(), image_format="png", labels=labels
    )
    path = tmp_path / "x.tfrecord"
    path.write_bytes(frame(record) + frame(b""))

    # TensorFlow checks the checksums.
    assert list(read_records(path)) == [record, b""]
    features = tf.train.Example.FromString(record).features.feature
    assert features["image/height"].int64_list.value == [7]
    assert features["image/width"].int64_list.value == [11]
    assert features["image/channels"].int64_list.value == [3]
    assert features["image/format"].bytes_list.value == [b"png"]
    assert features["image/segmentation/class/format"].bytes_list.value == [b"png"]
    example = decode_example(tf.constant(record))
    assert example.name.numpy().decode() == "folder/ä"
    np.testing.assert_array_equal(example.image, image)
    np.testing.assert_array_equal(example.labels, labels)


def test_files_of_deeplab2_are_readable(shared):
    """Raw int32 labels."""
    folder = shared / "golden" / "coco_labels"
    labels = np.load(folder / "panoptic_labels.npz")
    path = folder / "val-00000-of-00001.tfrecord"
    names = []
    for record in read_records(path):
        example = decode_example(tf.constant(record))
        name = example.name.numpy().decode()
        np.testing.assert_array_equal(example.labels, labels[name])
        assert example.image.shape[:2] == labels[name].shape
        names.append(name)
    assert names == ["000000129054", "000000184324", "000000366141", "000000397133"]
