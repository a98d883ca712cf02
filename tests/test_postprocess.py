"""Merging masks: reference data, a case by hand, invariants."""

from __future__ import annotations

import json

import numpy as np
import pytest
import tensorflow as tf

from cmt.errors import InputError
from cmt.outputs import Predictions
from cmt.postprocess import merge_masks

OPTIONS = {
    "thing_confidence": 0.6,
    "stuff_confidence": 0.5,
    "pixel_confidence": 0.4,
    "free_share": 0.8,
    "class_power": 1.0,
    "mask_power": 1.0,
    "min_thing_area_pixels": 0,
    "min_stuff_area_pixels": 0,
}
MERGES = ("MASK_WISE", "PIXEL_WISE")


def as_predictions(mask_logits, class_logits) -> Predictions:
    return Predictions(
        mask_logits=tf.convert_to_tensor(mask_logits),
        class_logits=tf.convert_to_tensor(class_logits),
        pixel_features=None,
        semantic_logits=None,
        layers=(),
    )


def segments_of(ids, scores) -> dict[int, float]:
    """The entries that are not padding, which is at the end."""
    ids, scores = np.asarray(ids), np.asarray(scores)
    count = np.count_nonzero(ids)
    assert not ids[count:].any()
    assert not scores[count:].any()
    assert len(set(ids[:count])) == count
    assert (np.diff(scores[:count]) <= 0).all()
    return dict(zip(ids[:count].tolist(), scores[:count].tolist(), strict=True))


# --- reference data -----------------------------------------------------------------


def golden_options(given: dict) -> dict:
    """Keywords of merge_masks for an entry of options.json."""
    pixel_wise = given["method"] == "pixelwise"
    both = given.get("class_confidence_threshold")
    return {
        "is_thing": [index < 80 for index in range(133)],
        "output_size": tuple(given["output_size"]),
        "merge": "PIXEL_WISE" if pixel_wise else "MASK_WISE",
        "thing_confidence": given.get("class_threshold_thing", both),
        "stuff_confidence": given.get("class_threshold_stuff", both),
        "pixel_confidence": given["pixel_confidence_threshold"],
        "free_share": given.get("overlap_threshold", 0.8),
        "class_power": given.get("reorder_class_weight", 1.0),
        "mask_power": given.get("reorder_mask_weight", 1.0),
        "min_thing_area_pixels": given["thing_area_limit"],
        "min_stuff_area_pixels": given["stuff_area_limit"],
    }


@pytest.mark.parametrize(
    "name",
    [
        "pixelwise_max_config",
        "pixelwise_small_areas",
        "maskwise_kmax_config",
        "maskwise_small_areas",
    ],
)
def test_reference_maps_are_reproduced_to_the_pixel(shared, name):
    folder = shared / "golden" / "postprocess"
    options = golden_options(json.loads((folder / "options.json").read_text())[name])
    with np.load(folder / "postprocess.npz") as data:
        mask_logits, class_logits = data["mask_logits"], data["class_logits"]
        expected = data[f"{name}/panoptic"]

    @tf.function(
        input_signature=[
            tf.TensorSpec([None, 33, 33, 128]),
            tf.TensorSpec([None, 128, 134]),
        ]
    )
    def graph(mask_logits, class_logits):
        return merge_masks(as_predictions(mask_logits, class_logits), **options)

    result = graph(mask_logits, class_logits)
    assert result.panoptic.dtype == tf.int32
    np.testing.assert_array_equal(result.panoptic, expected)
    eager = merge_masks(as_predictions(mask_logits[:1], class_logits[:1]), **options)
    np.testing.assert_array_equal(eager.panoptic, expected[:1])
    for panoptic, ids, scores in zip(*result, strict=True):
        values = set(np.unique(panoptic).tolist()) - {0}
        assert set(segments_of(ids, scores)) == values


# --- by hand ------------------------------------------------------------------------


def by_hand() -> Predictions:
    """A row of six pixels, three centers: thing 1 twice and stuff 2.

    Mask probabilities, softmax over the centers:
      0: .1 .9 .9 .0 .0 .0   thing, class probability 0.9: pasted first, rank 1
      1: .0 .0 .1 .1 .0 .0   thing, 0.95, but no pixel above 0.4: score 0, rank 3
      2: .9 .1 .0 .9 1. 1.   stuff, 0.8: rank 2
    """
    masks = np.array(
        [
            [0.1, 0.9, 0.9, 1e-9, 1e-9, 1e-9],
            [1e-9, 1e-9, 0.1, 0.1, 1e-9, 1e-9],
            [0.9, 0.1, 1e-9, 0.9, 1.0, 1.0],
        ]
    )
    classes = np.array([[0.9, 0.05, 0.05], [0.95, 0.04, 0.01], [0.1, 0.8, 0.1]])
    return as_predictions(
        np.float32(np.log(masks.T))[np.newaxis, np.newaxis],
        np.float32(np.log(classes))[np.newaxis],
    )


def merge_by_hand(merge, **changes):
    return merge_masks(
        by_hand(),
        is_thing=[True, False],
        output_size=(1, 6),
        merge=merge,
        **(OPTIONS | changes),
    )


def test_mask_wise_by_hand():
    result = merge_by_hand("MASK_WISE")
    thing, stuff = 256 + 1, 512
    expected = [stuff, thing, thing, stuff, stuff, stuff]
    np.testing.assert_array_equal(result.panoptic, [[expected]])
    assert segments_of(result.segment_ids[0], result.scores[0]) == pytest.approx(
        {thing: 0.9 * 0.9, stuff: 0.8 * 0.95}, abs=1e-6
    )


def test_pixel_wise_by_hand():
    result = merge_by_hand("PIXEL_WISE")
    thing, stuff = 256 + 1, 512
    expected = [stuff, thing, thing, stuff, stuff, stuff]
    np.testing.assert_array_equal(result.panoptic, [[expected]])
    assert segments_of(result.segment_ids[0], result.scores[0]) == pytest.approx(
        {thing: 0.9 * 0.9, stuff: 0.8 * 0.95}, abs=1e-6
    )


def test_pixels_of_a_rejected_center_become_void_pixel_wise():
    result = merge_by_hand("PIXEL_WISE", stuff_confidence=0.81)
    np.testing.assert_array_equal(result.panoptic, [[[0, 257, 257, 0, 0, 0]]])


def test_a_tie_with_a_rejected_center_goes_to_the_one_that_is_live():
    """One pixel, three centers: the first, rejected, is as likely as the second."""
    logits = tf.constant([[[[2.0, 2.0, -9.0]]]])
    classes = tf.math.log(tf.constant([[[0.3, 0.3, 0.4], [0.9, 0.0, 0.1], [0, 0, 1]]]))
    predictions = Predictions(logits, classes, None, None, ())
    options = OPTIONS | {"merge": "PIXEL_WISE", "output_size": (1, 1)}
    result = merge_masks(predictions, is_thing=[True, False], **options)
    assert result.panoptic.numpy().item() == 256 + 2
    worse = predictions._replace(mask_logits=logits - tf.constant([0, 1e-5, 0]))
    result = merge_masks(worse, is_thing=[True, False], **options)
    assert result.panoptic.numpy().item() == 0


def test_scores_follow_the_powers():
    result = merge_by_hand("MASK_WISE", class_power=2.0, mask_power=0.0)
    scores = segments_of(result.segment_ids[0], result.scores[0])
    # Now center 1, without pixels, has the first rank: 0.95^2 before 0.9^2.
    assert scores == pytest.approx({256 + 2: 0.81, 512: 0.64}, abs=1e-6)


@pytest.mark.parametrize(
    ("free_share", "owner_of_pixel_2"), [(0.3, 256 + 2), (0.4, 256 + 3), (0.5, 0)]
)
def test_a_mask_that_is_mostly_taken_is_not_pasted(free_share, owner_of_pixel_2):
    """At pixel_confidence 0.05 masks are larger and overlap.

    Stuff, pixels 0 1 3 4 5, score 0.8 * 0.78, is first; then center 0, pixels 0 1 2,
    one of three free; then center 1, pixels 2 3, one of two free, if still free.
    """
    result = merge_by_hand("MASK_WISE", pixel_confidence=0.05, free_share=free_share)
    expected = [512, 512, owner_of_pixel_2, 512, 512, 512]
    np.testing.assert_array_equal(result.panoptic, [[expected]])


def test_areas_are_kept_from_the_limit_on():
    kept = merge_by_hand(
        "MASK_WISE", min_thing_area_pixels=2, min_stuff_area_pixels=4
    ).panoptic.numpy()
    assert set(kept.ravel()) == {257, 512}
    dropped = merge_by_hand(
        "MASK_WISE", min_thing_area_pixels=3, min_stuff_area_pixels=5
    )
    assert not dropped.panoptic.numpy().any()
    assert not dropped.segment_ids.numpy().any()


@pytest.mark.parametrize("merge", MERGES)
def test_padding_is_void_and_does_not_count_as_area(merge):
    result = merge_by_hand(
        merge, min_stuff_area_pixels=4, valid_sizes=tf.constant([[1, 5]])
    )
    np.testing.assert_array_equal(result.panoptic, [[[0, 257, 257, 0, 0, 0]]])


@pytest.mark.parametrize("merge", MERGES)
def test_without_a_confident_center_all_is_void(merge):
    result = merge_by_hand(merge, thing_confidence=1.0, stuff_confidence=1.0)
    assert not result.panoptic.numpy().any()
    assert not result.segment_ids.numpy().any()
    assert not result.scores.numpy().any()


# --- invariants ---------------------------------------------------------------------


def random_predictions(dtype=np.float32):
    rng = np.random.default_rng(5)
    mask_logits = 4 * rng.normal(size=[1, 5, 7, 11])
    class_logits = 4 * rng.normal(size=[1, 11, 4])
    return mask_logits.astype(dtype), class_logits.astype(dtype)


def test_permuting_centers_changes_nothing_mask_wise():
    mask_logits, class_logits = random_predictions()
    order = np.random.default_rng(0).permutation(11)
    keywords = OPTIONS | {
        "is_thing": [True, True, False],
        "output_size": (13, 17),
        "merge": "MASK_WISE",
    }
    one = merge_masks(as_predictions(mask_logits, class_logits), **keywords)
    other = merge_masks(
        as_predictions(mask_logits[..., order], class_logits[:, order]), **keywords
    )
    assert len(np.unique(one.panoptic)) > 2
    np.testing.assert_array_equal(one.panoptic, other.panoptic)
    np.testing.assert_array_equal(one.segment_ids, other.segment_ids)


@pytest.mark.parametrize("merge", MERGES)
def test_saved_model_takes_any_batch(merge, tmp_path):
    keywords = OPTIONS | {"is_thing": [True, True, False], "output_size": (13, 17)}
    mask_logits, class_logits = random_predictions()

    class Module(tf.Module):
        @tf.function(
            input_signature=[
                tf.TensorSpec([None, None, None, 11]),
                tf.TensorSpec([None, 11, 4]),
                tf.TensorSpec([None, 2], tf.int32),
            ]
        )
        def __call__(self, mask_logits, class_logits, valid_sizes):
            predictions = as_predictions(mask_logits, class_logits)
            result = merge_masks(
                predictions, merge=merge, valid_sizes=valid_sizes, **keywords
            )
            assert result.panoptic.shape.as_list() == [None, 13, 17]
            assert result.segment_ids.shape.as_list() == [None, 11]
            return result._asdict()

    tf.saved_model.save(Module(), str(tmp_path / "model"))
    loaded = tf.saved_model.load(str(tmp_path / "model"))
    expected = merge_masks(
        as_predictions(mask_logits, class_logits), merge=merge, **keywords
    )
    for batch in (1, 3):
        result = loaded(
            np.repeat(mask_logits, batch, axis=0),
            np.repeat(class_logits, batch, axis=0),
            np.repeat([[13, 17]], batch, axis=0).astype(np.int32),
        )
        for name, value in expected._asdict().items():
            np.testing.assert_array_equal(result[name], np.repeat(value, batch, axis=0))


def test_half_precision_is_computed_in_float32():
    keywords = OPTIONS | {
        "is_thing": [True, True, False],
        "output_size": (13, 17),
        "merge": "MASK_WISE",
    }
    mask_logits, class_logits = (
        tf.cast(logits, tf.bfloat16) for logits in random_predictions()
    )
    half = merge_masks(as_predictions(mask_logits, class_logits), **keywords)
    single = merge_masks(
        as_predictions(
            tf.cast(mask_logits, tf.float32), tf.cast(class_logits, tf.float32)
        ),
        **keywords,
    )
    np.testing.assert_array_equal(half.panoptic, single.panoptic)
    np.testing.assert_array_equal(half.scores, single.scores)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"merge": "BOTH"}, "merge must be MASK_WISE or PIXEL_WISE; got BOTH"),
        ({"is_thing": [True]}, "3 classes; got 1"),
    ],
)
def test_wrong_arguments_are_named(changes, message):
    keywords = {"is_thing": [True] * 3, "output_size": (5, 7), "merge": "MASK_WISE"}
    with pytest.raises(InputError, match=message):
        merge_masks(
            as_predictions(*random_predictions()), **(OPTIONS | keywords | changes)
        )


def test_more_centers_than_instance_numbers_are_refused():
    predictions = as_predictions(
        np.zeros([1, 2, 2, 256], "f"), np.zeros([1, 256, 2], "f")
    )
    with pytest.raises(InputError, match="got 256 and 256"):
        merge_masks(
            predictions,
            is_thing=[True],
            output_size=(2, 2),
            merge="MASK_WISE",
            **OPTIONS,
        )
