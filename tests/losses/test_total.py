"""The whole loss: its list of terms, its weights, and images out of the ordinary."""

from __future__ import annotations

import functools

import numpy as np
import pytest
import tensorflow as tf

from cmt.losses.targets import label_stride, stride_labels
from cmt.outputs import LayerPredictions, Targets
from tests.losses import straightforward

_MAIN = {
    "pq_class",
    "pq_mask",
    "mask_id",
    "pixel_contrastive",
    "semantic",
    "unmatched_masks",
}


def _values(loss, targets, predictions):
    """Terms as arrays, and the gradient of each term in each prediction."""
    flat = [x for x in tf.nest.flatten(predictions) if x is not None]
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(flat)
        terms = loss.terms(targets, predictions)
    gradients = {name: tape.gradient(term, flat) for name, term in terms.items()}
    return {name: term.numpy() for name, term in terms.items()}, gradients


def _named_gradient(loss, case, field, targets=None):
    prediction = getattr(case.predictions, field)
    with tf.GradientTape() as tape:
        tape.watch(prediction)
        value = loss(targets or case.targets, case.predictions)
    return tape.gradient(value, prediction).numpy()


def test_terms_weights_and_total(random_case, make_loss):
    loss = make_loss(
        random_case.classes,
        num_layers=2,
        pq_class_weight=2.0,
        pq_mask_weight=3.0,
        mask_id_weight=5.0,
        pixel_loss_weight=7.0,
        mask_approximation_weight=11.0,
        semantic_weight=13.0,
        layer_weight=17.0,
    )
    terms = loss.terms(random_case.targets, random_case.predictions)
    one_pass = {n for n in loss.weights if not n.startswith("first_pass/")}
    assert set(terms) == one_pass
    assert set(terms) - _MAIN == {
        f"layer{number}/{term}"
        for number in (1, 2)
        for term in ("pq_mask", "mask_id", "mask_approximation")
    }
    assert loss.weights["layer2/pq_mask"] == 51.0
    assert loss.weights["layer1/mask_id"] == 85.0
    assert loss.weights["layer1/mask_approximation"] == 11.0
    expected = sum(loss.weights[name] * term.numpy() for name, term in terms.items())
    np.testing.assert_allclose(loss.total(terms), expected, rtol=1e-6)
    np.testing.assert_allclose(
        loss(random_case.targets, random_case.predictions), expected.mean(), rtol=1e-6
    )


def test_terms_without_inputs_are_absent(random_case, make_loss):
    predictions = random_case.predictions
    first = predictions.layers[0]._replace(reference_points=None)
    layers = (first, LayerPredictions(None, None))
    predictions = predictions._replace(semantic_logits=None, layers=layers)
    loss = make_loss(random_case.classes, num_layers=2)
    terms = loss.terms(random_case.targets, predictions)
    assert set(terms) == _MAIN - {"semantic"} | {"layer1/pq_mask", "layer1/mask_id"}


def test_weights_move_the_gradient_of_their_term_alone(random_case, make_loss):
    base = make_loss(random_case.classes, num_layers=2)
    double = make_loss(random_case.classes, num_layers=2, semantic_weight=2.0)
    for field, factor in (("semantic_logits", 2.0), ("class_logits", 1.0)):
        np.testing.assert_allclose(
            _named_gradient(double, random_case, field),
            factor * _named_gradient(base, random_case, field),
            rtol=1e-6,
        )


def test_permuted_centers_change_nothing(random_case, make_loss):
    case = random_case
    loss = make_loss(case.classes, num_layers=2)
    order = np.random.default_rng(0).permutation(case.centers)
    predictions = case.predictions._replace(
        mask_logits=tf.gather(case.predictions.mask_logits, order, axis=-1),
        class_logits=tf.gather(case.predictions.class_logits, order, axis=1),
        layers=tuple(
            LayerPredictions(
                tf.gather(layer.affinity_logits, order, axis=-1),
                tf.gather(layer.reference_points, order, axis=1),
            )
            for layer in case.predictions.layers
        ),
    )
    before = loss.terms(case.targets, case.predictions)
    after = loss.terms(case.targets, predictions)
    for name, term in before.items():
        np.testing.assert_allclose(after[name], term, rtol=1e-5, err_msg=name)


def test_permuted_and_padded_masks_change_nothing(random_case, make_loss):
    case = random_case
    loss = make_loss(case.classes, num_layers=2)
    order = np.array([2, 0, 1])
    classes = case.targets.mask_classes.numpy()[:, order]
    ids = case.targets.mask_ids.numpy()
    moved = np.where(ids < 0, -1, np.argsort(order)[ids])
    targets = case.targets._replace(
        mask_ids=tf.constant(moved),
        mask_classes=tf.constant(np.pad(classes, [(0, 0), (0, 4)])),
    )
    before, gradients = _values(loss, case.targets, case.predictions)
    after, moved_gradients = _values(loss, targets, case.predictions)
    for name, term in before.items():
        np.testing.assert_allclose(after[name], term, rtol=1e-5, err_msg=name)
        for ours, theirs in zip(gradients[name], moved_gradients[name], strict=True):
            if ours is not None:
                np.testing.assert_allclose(ours, theirs, atol=1e-7)


def test_void_pixels_get_exactly_no_gradient(random_case, make_loss):
    case = random_case
    void = case.targets.semantic.numpy() == 0
    assert void.any(axis=(1, 2)).all()
    for pixels in (4096, 34):
        loss = make_loss(case.classes, num_layers=2, contrastive_pixels=pixels)
        for field in ("mask_logits", "pixel_features", "semantic_logits"):
            gradient = _named_gradient(loss, case, field)
            assert not gradient[void].any(), field
            assert gradient[~void].any(), field
    gradient = _named_gradient(
        make_loss(case.classes, num_layers=2, pixel_loss="INSTANCE_DISCRIMINATION"),
        case,
        "pixel_features",
    )
    assert not gradient[void].any()


def test_sampled_pixels_alone_get_a_gradient(random_case, make_loss):
    tf.random.set_seed(0)
    loss = make_loss(random_case.classes, num_layers=2, contrastive_pixels=7)
    gradient = _named_gradient(loss, random_case, "pixel_features")
    touched = np.abs(gradient).sum(axis=-1) > 0
    assert (touched.sum(axis=(1, 2)) <= 7).all()
    assert touched.sum() > 7


def test_no_masks_and_all_void(random_case, make_loss):
    """Image 0 all void, image 1 all crowd: only class and semantics have a loss."""
    case = random_case
    semantic = np.zeros(case.targets.semantic.shape, np.int32)
    semantic[1] = 1
    targets = Targets(
        semantic=tf.constant(semantic),
        mask_ids=tf.fill(semantic.shape, -1),
        mask_classes=tf.zeros([case.batch, case.masks], tf.int32),
    )
    for pixel_loss in ("PIXEL_CONTRASTIVE", "INSTANCE_DISCRIMINATION"):
        loss = make_loss(case.classes, num_layers=2, pixel_loss=pixel_loss)
        terms, gradients = _values(loss, targets, case.predictions)
        for name, term in terms.items():
            positive = [name == "pq_class", name in ("pq_class", "semantic")]
            assert (term > 0).tolist() == positive, name
            if not any(positive):
                assert not any(
                    g is not None and g.numpy().any() for g in gradients[name]
                )
        # All centers are pushed to void, by about 1/4 where all pixels are void.
        void = -tf.nn.log_softmax(case.predictions.class_logits)[0, :, -1]
        assert terms["pq_class"][0] == pytest.approx(void.numpy().mean() / 4, rel=1e-3)


def test_more_masks_than_centers(make_loss, random_case):
    """Two centers, three masks of 21, 7 and 7 pixels: the last is as good as void."""
    case = random_case
    ids = np.repeat([0, 0, 0, 1, 2], 7).reshape(1, 5, 7).astype(np.int32)
    classes = np.array([[3, 1, 2]], np.int32)
    targets = Targets(
        semantic=tf.constant(classes[0][ids]),
        mask_ids=tf.constant(ids),
        mask_classes=tf.constant(classes),
    )
    voided = targets._replace(mask_ids=tf.where(targets.mask_ids == 2, -1, ids))
    predictions = case.predictions._replace(
        mask_logits=case.predictions.mask_logits[:1, ..., :2],
        class_logits=case.predictions.class_logits[:1, :2],
        pixel_features=case.predictions.pixel_features[:1],
        semantic_logits=case.predictions.semantic_logits[:1],
        layers=tuple(
            LayerPredictions(a[:1, ..., :2], r[:1, :2])
            for a, r, _ in case.predictions.layers
        ),
    )
    loss = make_loss(case.classes, num_layers=2)
    terms, gradients = _values(loss, targets, predictions)
    expected, _ = _values(loss, voided, predictions)
    assert terms.pop("unmatched_masks").tolist() == [1.0]
    assert expected["unmatched_masks"].tolist() == [0.0]
    for name in terms:
        if name != "pixel_contrastive":
            np.testing.assert_allclose(terms[name], expected[name], 1e-6, err_msg=name)
    assert terms["pixel_contrastive"] > 0
    for name in ("pq_mask", "mask_id"):
        assert not gradients[name][0].numpy()[:, 4].any(), name


def test_unmatched_masks_are_counted_and_change_no_total(random_case, make_loss):
    """Of three masks, two in the first image, two centers match two."""
    case = random_case
    predictions = case.predictions._replace(
        mask_logits=case.predictions.mask_logits[..., :2],
        class_logits=case.predictions.class_logits[:, :2],
        layers=(),
    )
    for matcher in ("HOST", "IN_GRAPH"):
        loss = make_loss(case.classes, matcher=matcher)
        terms = loss.terms(case.targets, predictions)
        assert terms["unmatched_masks"].numpy().tolist() == [0.0, 1.0]
        without = {k: v for k, v in terms.items() if k != "unmatched_masks"}
        np.testing.assert_array_equal(loss.total(terms), loss.total(without))
    assert loss.weights["unmatched_masks"] == 0.0
    terms = loss.terms(case.targets, case.predictions._replace(layers=()))
    assert terms["unmatched_masks"].numpy().tolist() == [0.0, 0.0]


def test_stop_gradients_leave_each_term_its_own_inputs(random_case, make_loss):
    loss = make_loss(random_case.classes, num_layers=2)
    _, gradients = _values(loss, random_case.targets, random_case.predictions)
    fields = ["mask", "class", "features", "semantic"]
    fields += [
        f"{kind}{number}" for number in (1, 2) for kind in ("affinity", "points")
    ]
    reached = {
        name: [f for f, g in zip(fields, parts, strict=True) if g is not None]
        for name, parts in gradients.items()
    }
    assert reached == {
        "pq_class": ["class"],
        "pq_mask": ["mask"],
        "mask_id": ["mask"],
        "pixel_contrastive": ["features"],
        "semantic": ["semantic"],
        "unmatched_masks": [],
        "layer1/pq_mask": ["affinity1"],
        "layer1/mask_id": ["affinity1"],
        "layer1/mask_approximation": ["points1"],
        "layer2/pq_mask": ["affinity2"],
        "layer2/mask_id": ["affinity2"],
        "layer2/mask_approximation": ["points2"],
    }


def test_graph_equals_eager(random_case, make_loss):
    loss = make_loss(random_case.classes, num_layers=2)
    eager = loss(random_case.targets, random_case.predictions)
    graph = tf.function(loss)(random_case.targets, random_case.predictions)
    np.testing.assert_allclose(graph, eager, rtol=1e-6)


def test_logits_that_are_not_finite_make_their_terms_so(random_case, make_loss):
    """Nothing raises: what trains has to keep its state first."""
    loss = make_loss(random_case.classes, num_layers=2)
    bad = random_case.predictions._replace(
        mask_logits=random_case.predictions.mask_logits * np.nan
    )
    terms = tf.function(loss.terms, autograph=False)(random_case.targets, bad)
    assert not np.isfinite(terms["pq_mask"]).any()
    assert np.isfinite(terms["semantic"]).all()
    assert not np.isfinite(loss.total(terms)).any()


@pytest.mark.parametrize(("centers", "pixels"), [(11, 4096), (11, 20), (2, 20)])
def test_equals_the_one_hot_formulation(random_case, make_loss, centers, pixels):
    """Terms and gradients, in eager mode, where both draw the same pixels."""
    case = random_case
    predictions = case.predictions._replace(
        mask_logits=case.predictions.mask_logits[..., :centers],
        class_logits=case.predictions.class_logits[:, :centers],
        layers=tuple(
            LayerPredictions(a[..., :centers], r[:, :centers])
            for a, r, _ in case.predictions.layers
        ),
    )
    loss = make_loss(case.classes, num_layers=2, contrastive_pixels=pixels)
    flat = [x for x in tf.nest.flatten(predictions) if x is not None]
    results = []
    for terms_of in (
        loss.terms,
        functools.partial(straightforward.straightforward_terms, loss),
    ):
        tf.random.set_seed(0)
        with tf.GradientTape(persistent=True) as tape:
            tape.watch(flat)
            terms = terms_of(case.targets, predictions)
        gradients = {
            name: [g for g in tape.gradient(term, flat) if g is not None]
            for name, term in terms.items()
        }
        results.append((terms, gradients))
    (terms, gradients), (expected, expected_gradients) = results
    assert set(terms) == set(expected) | {"unmatched_masks"}
    for name, term in expected.items():
        np.testing.assert_allclose(terms[name], term, rtol=1e-5, err_msg=name)
        for ours, theirs in zip(gradients[name], expected_gradients[name], strict=True):
            limit = 1e-5 * np.abs(theirs).max()
            np.testing.assert_allclose(ours, theirs, atol=limit, err_msg=name)


def test_strides():
    assert label_stride(97, 25, "height") == 4
    assert label_stride(97, 97, "height") == 1
    assert label_stride(9, 1, "height") == 9
    for size, prediction in ((97, 24), (96, 25), (5, 9)):
        with pytest.raises(ValueError, match=f"width.*{size} and {prediction}"):
            label_stride(size, prediction, "width")
    labels = tf.reshape(tf.range(45), [1, 5, 9])
    assert stride_labels(labels, 3, 3).numpy().tolist() == [
        [0, 4, 8, 18, 22, 26, 36, 40, 44]
    ]


@pytest.mark.parametrize(
    ("changes", "rule"),
    [
        ({"pixel_loss": "NONE"}, "pixel_loss must be one of.*'NONE'"),
        ({"matcher": "SCIPY"}, "matcher must be one of.*'SCIPY'"),
        ({"pixel_loss_temperature": 0.0}, "pixel_loss_temperature must be above 0"),
        ({"is_thing": (True,)}, "is_thing must have one entry a class; got 1 and"),
    ],
)
def test_wrong_arguments(make_loss, changes, rule):
    with pytest.raises(ValueError, match=rule):
        make_loss(3, **changes)


def test_predictions_that_do_not_fit(random_case, make_loss):
    case = random_case
    with pytest.raises(ValueError, match=r"class_logits must have num_classes \+ 1"):
        make_loss(5, num_layers=2).terms(case.targets, case.predictions)
    with pytest.raises(ValueError, match="at most num_layers layers; got 2 and 1"):
        make_loss(case.classes, num_layers=1).terms(case.targets, case.predictions)


def test_the_first_pass_is_scored_by_the_same_code(random_case, make_loss):
    loss = make_loss(random_case.classes, num_layers=2)
    second, targets = random_case.predictions, random_case.targets
    # Centers of the first pass in another order: it has a matching of its own.
    first = second._replace(
        mask_logits=second.mask_logits[..., ::-1],
        class_logits=second.class_logits[:, ::-1],
        layers=(),
    )
    alone = loss.terms(targets, first)
    both = loss.terms(targets, second._replace(first_pass=first))
    assert set(both) == set(loss.terms(targets, second)) | {
        f"first_pass/{name}" for name in alone
    }
    deterministic = ("pq_class", "pq_mask", "mask_id", "semantic")
    for name in deterministic:
        np.testing.assert_allclose(both[f"first_pass/{name}"], alone[name], rtol=1e-6)
        assert loss.weights[f"first_pass/{name}"] == loss.weights[name]
