"""What is told of an error of TensorFlow."""

from __future__ import annotations

import pytest
import tensorflow as tf

from cmt.errors import tensorflow_reason


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        (
            "<stack traces unavailable>\ntrain-0.tfrecord: record 3",
            "train-0.tfrecord: record 3",
        ),
        (
            "Graph execution error:\n\nDetected at node 'a'\nno space left\n",
            "no space left",
        ),
        ("{{function_node x}} bad shape [Op:Add]", "bad shape"),
        (
            "{{function_node x}} Error in user-defined function passed to "
            "ParallelMapDatasetV2:1 transformation with iterator: "
            "Iterator::Root::ParallelMapV2: a.tfrecord; No such file",
            "a.tfrecord; No such file",
        ),
        ("a.tfrecord; No such file [Op:MapDataset] name:", "a.tfrecord; No such file"),
        ("bad shape\n\t [[{{node a/b}}]]\n\t [[IteratorGetNext]]", "bad shape"),
        ("run [[old]]/{{x}}/a.tfrecord; gone", "run [[old]]/{{x}}/a.tfrecord; gone"),
        ("", "DataLossError"),
    ],
)
def test_tells_the_line_that_matters(message, reason):
    assert tensorflow_reason(tf.errors.DataLossError(None, None, message)) == reason


def test_a_long_line_keeps_both_ends():
    reason = tensorflow_reason(ValueError("begin" + 1000 * "x" + "end"))
    assert reason.startswith("begin")
    assert reason.endswith("end")
    assert len(reason) < 500
