"""The loss as XLA compiles it: what it lowers to, its results, its matcher."""

from __future__ import annotations

import re

import numpy as np
import pytest
import tensorflow as tf
import tf_keras
from tensorflow.python.tpu import tpu_replication

from cmt.errors import InputError
from cmt.losses import regions
from cmt.losses.products import matmul, one_hot_matmul
from cmt.matching.masks import choose_matcher

# Shapes such as f32[<=7] are only bounded; the rest call the host, or are float64.
_REFUSED = re.compile(r"\[[^\]]*<=|custom-call|infeed|outfeed|\bsend|\brecv|f64|c128")


def _flat(predictions):
    return [x for x in tf.nest.flatten(predictions) if x is not None]


def _with_gradients(loss, targets, predictions):
    """A function of flat inputs to terms and the gradients of the total."""
    structure = (targets, predictions)

    def step(*flat):
        values = iter(flat)
        leaves = [x if x is None else next(values) for x in tf.nest.flatten(structure)]
        targets, predictions = tf.nest.pack_sequence_as(structure, leaves)
        watched = _flat(predictions)
        with tf.GradientTape() as tape:
            tape.watch(watched)
            terms = loss.terms(targets, predictions)
            total = tf.reduce_sum(loss.total(terms))
        return terms, tape.gradient(total, watched)

    return step


@pytest.mark.parametrize(
    ("pixel_loss", "centers"),
    [
        ("PIXEL_CONTRASTIVE", 2),
        ("INSTANCE_DISCRIMINATION", 11),
        pytest.param("PIXEL_CONTRASTIVE", 11, marks=pytest.mark.slow),
        pytest.param("INSTANCE_DISCRIMINATION", 2, marks=pytest.mark.slow),
    ],
)
def test_lowers_to_static_hlo(random_case, make_loss, pixel_loss, centers):
    """With every term and a first pass; with more masks than centers, too."""
    case = _with_centers(random_case, centers)
    predictions = case._replace(first_pass=case._replace(layers=()))
    loss = make_loss(
        random_case.classes, num_layers=2, pixel_loss=pixel_loss, contrastive_pixels=7
    )
    step = _with_gradients(loss, random_case.targets, predictions)
    flat = _flat((random_case.targets, predictions))
    compiled = tf.function(step, jit_compile=True, autograph=False)
    hlo = compiled.experimental_get_compiler_ir(*flat)(stage="hlo")
    assert "while" in hlo
    assert set(_REFUSED.findall(hlo)) == set()


def _with_centers(case, centers):
    """The predictions of the first centers alone."""
    predictions = case.predictions
    return predictions._replace(
        mask_logits=predictions.mask_logits[..., :centers],
        class_logits=predictions.class_logits[:, :centers],
        layers=tuple(
            layer._replace(
                affinity_logits=layer.affinity_logits[..., :centers],
                reference_points=layer.reference_points[:, :centers],
            )
            for layer in predictions.layers
        ),
    )


@pytest.mark.parametrize(
    "refused",
    [
        lambda x: tf.reduce_sum(tf.where(x > 0.0)),
        lambda x: tf.reduce_sum(tf.cast(x, tf.float64)),
    ],
)
def test_the_check_finds_what_it_refuses(refused):
    compiled = tf.function(refused, jit_compile=True, autograph=False)
    hlo = compiled.experimental_get_compiler_ir(tf.ones([7]))(stage="hlo")
    assert _REFUSED.search(hlo)


def _run(case, loss, **options) -> list[tf.Tensor]:
    """Terms and gradients of a compiled step."""
    step = _with_gradients(loss, case.targets, case.predictions)
    step = tf.function(step, autograph=False, **options)
    return tf.nest.flatten(step(*_flat((case.targets, case.predictions))))


@pytest.fixture(scope="module")
def compiled(random_case, make_loss):
    """Terms and gradients by XLA; all pixels are contrasted: nothing is drawn."""
    loss = make_loss(random_case.classes, num_layers=2)
    return _run(random_case, loss, jit_compile=True)


@pytest.mark.parametrize("matcher", ["HOST", "IN_GRAPH"])
def test_compiled_equals_what_is_not(random_case, make_loss, compiled, matcher):
    loss = make_loss(random_case.classes, num_layers=2, matcher=matcher)
    for ours, expected in zip(compiled, _run(random_case, loss), strict=True):
        np.testing.assert_allclose(ours, expected, rtol=1e-5, atol=1e-7)


def test_void_gets_exactly_no_gradient(random_case, make_loss):
    targets, predictions = random_case.targets, random_case.predictions
    loss = make_loss(random_case.classes, num_layers=2, contrastive_pixels=34)
    step = _with_gradients(loss, targets, predictions)
    flat = _flat((targets, predictions))
    _, gradients = tf.function(step, jit_compile=True, autograph=False)(*flat)
    void = targets.semantic.numpy() == 0
    mask_logits, _, pixel_features, semantic_logits, *_ = gradients
    for gradient in (mask_logits, pixel_features, semantic_logits):
        assert not gradient.numpy()[void].any()
        assert gradient.numpy()[~void].any()


@pytest.fixture
def on_a_tpu(monkeypatch):
    """What is traced takes itself for a TPU's; a CPU can run it as well."""
    monkeypatch.setattr(regions, "is_for_tpu", lambda: True)


@pytest.mark.parametrize("pixel_loss", ["PIXEL_CONTRASTIVE", "INSTANCE_DISCRIMINATION"])
def test_products_on_a_tpu(random_case, make_loss, pixel_loss, on_a_tpu):
    """Those with the ground truth are of bfloat16, no other is rounded."""
    targets, predictions = random_case.targets, random_case.predictions
    loss = make_loss(random_case.classes, num_layers=2, pixel_loss=pixel_loss)
    step = _with_gradients(loss, targets, predictions)
    compiled = tf.function(step, jit_compile=True, autograph=False)
    flat = _flat((targets, predictions))
    hlo = compiled.experimental_get_compiler_ir(*flat)(stage="hlo")
    dots = [line for line in hlo.splitlines() if " dot(" in line]
    assert all(re.search(r"= f32\S+ dot\(", dot) for dot in dots)
    # Sums over regions and back, at the main output's resolution and for each layer.
    rounded = [dot for dot in dots if re.search(r"dot\(bf16.*, bf16", dot)]
    assert len(rounded) == 6
    exact = [dot for dot in dots if dot not in rounded]
    assert exact
    assert all("operand_precision={high,high}" in dot for dot in exact)


def test_products_on_a_tpu_change_little(compiled, random_case, make_loss, on_a_tpu):
    """Of terms, and of gradients relative to the largest entry; 1e-3 is allowed."""
    loss = make_loss(random_case.classes, num_layers=2)
    changed = _run(random_case, loss, jit_compile=True)
    differences = [
        np.abs(ours - exact).max() / max(np.abs(exact).max(), 1e-6)
        for exact, ours in zip(compiled, changed, strict=True)
    ]
    assert 0.0 < max(differences) < 2e-5


@pytest.mark.parametrize("transpose_left", [False, True])
@pytest.mark.parametrize("transpose_right", [False, True])
def test_product_and_its_gradient(transpose_left, transpose_right):
    rng = np.random.default_rng(0)
    left = rng.normal(size=(2, 7, 5) if transpose_left else (2, 5, 7))
    right = rng.normal(size=(2, 3, 7) if transpose_right else (2, 7, 3))
    weights = tf.constant(rng.normal(size=(2, 5, 3)), tf.float32)
    inputs = tf.constant(left, tf.float32), tf.constant(right, tf.float32)
    transposes = dict(transpose_left=transpose_left, transpose_right=transpose_right)

    def step(*inputs):
        with tf.GradientTape() as tape:
            tape.watch(inputs)
            product = matmul(*inputs, **transposes)
            total = tf.reduce_sum(product * weights)
        return product, *tape.gradient(total, inputs)

    compiled = tf.function(step, jit_compile=True, autograph=False)
    for ours, expected in zip(compiled(*inputs), step(*inputs), strict=True):
        np.testing.assert_allclose(ours, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("transpose", [False, True])
def test_product_with_a_one_hot_keeps_sixteen_bits(transpose):
    rng = np.random.default_rng(0)
    ids = rng.integers(0, 3, [2, 5])
    values = tf.constant(rng.normal(size=[2, 5 if transpose else 3, 7]), tf.float32)

    @tf.function(jit_compile=True, autograph=False)
    def product(dtype, values):
        return one_hot_matmul(
            tf.one_hot(ids, 3, dtype=dtype), values, transpose=transpose
        )

    exact, ours = product(tf.float32, values), product(tf.bfloat16, values)
    expected = tf.matmul(tf.one_hot(ids, 3), values, transpose_a=transpose)
    np.testing.assert_allclose(exact, expected, rtol=1e-6, atol=1e-6)
    largest = np.abs(values).max()
    assert 0.0 < np.abs(ours - exact).max() < 2.0**-15 * largest


_NUMBERS = {
    "mask_logits": lambda p, x: p._replace(mask_logits=p.mask_logits + x),
    "class_logits": lambda p, x: p._replace(class_logits=p.class_logits + x),
    "pixel_features": lambda p, x: p._replace(pixel_features=p.pixel_features + x),
    "semantic_logits": lambda p, x: p._replace(semantic_logits=p.semantic_logits + x),
    "affinity_logits": lambda p, x: p._replace(
        layers=tuple(
            y._replace(affinity_logits=y.affinity_logits + x) for y in p.layers
        )
    ),
    "reference_points": lambda p, x: p._replace(
        layers=tuple(
            y._replace(reference_points=y.reference_points + x) for y in p.layers
        )
    ),
}


@pytest.mark.parametrize(
    "jit_compile", [pytest.param(False, marks=pytest.mark.slow), True]
)
@pytest.mark.parametrize("field", _NUMBERS)
def test_what_is_not_finite_ends_in_a_term_that_is_not(
    random_case, make_loss, field, jit_compile
):
    """Numbers of image 1 are NaN or infinite; image 0 keeps its terms."""
    case = random_case
    loss = make_loss(case.classes, num_layers=2, matcher="IN_GRAPH")
    part = getattr(case.predictions, field, None)
    part = getattr(case.predictions.layers[0], field) if part is None else part
    # A number that counts in some term: what is on void, for one, does not.
    owned = np.argwhere(case.targets.mask_ids[1].numpy()[::2, ::2] >= 0)[0]
    places = {"reference_points": (), "class_logits": (), "affinity_logits": owned}
    place = (1, *places.get(field, 2 * owned))

    @tf.function(jit_compile=jit_compile, autograph=False)
    def terms(added):
        return loss.terms(case.targets, _NUMBERS[field](case.predictions, added))

    good = terms(tf.zeros(part.shape))
    for value in (np.nan, np.inf):
        added = np.zeros(part.shape, np.float32)
        added[(*place, ..., 0)] = value
        bad = terms(tf.constant(added))
        assert not all(np.isfinite(term[1]) for term in bad.values()), value
        assert np.isfinite(bad["unmatched_masks"]).all()
        for name, term in bad.items():
            np.testing.assert_allclose(term[0], good[name][0], rtol=1e-6, err_msg=name)


def _chosen(**options):
    """A function to compile, and the list of what AUTO chose in its traces."""
    chosen = []

    def step(x):
        chosen.append(choose_matcher("AUTO"))
        return x + 1.0

    return tf.function(step, autograph=False, **options), chosen


def test_auto_is_in_the_graph_where_xla_must_compile():
    step, chosen = _chosen(jit_compile=True)
    step(tf.zeros([]))
    inner, in_inner = _chosen()
    tf.function(lambda x: inner(x), jit_compile=True, autograph=False)(tf.zeros([]))
    branch, in_branch = _chosen()
    tf.function(
        lambda x: tf.cond(x > 0.0, lambda: branch(x), lambda: x),
        jit_compile=True,
        autograph=False,
    )(tf.zeros([]))
    assert chosen == in_inner == in_branch == ["IN_GRAPH"]


def test_auto_is_the_host_elsewhere():
    assert choose_matcher("AUTO") == "HOST"
    step, chosen = _chosen()
    step(tf.zeros([]))
    with tf.distribute.MirroredStrategy(["/cpu:0"]).scope():
        assert choose_matcher("AUTO") == "HOST"
    assert chosen == ["HOST"]


def test_auto_in_a_replica():
    strategy = tf.distribute.MirroredStrategy(["/cpu:0"])
    for jit_compile, expected in ((True, "IN_GRAPH"), (False, "HOST")):
        step, chosen = _chosen(jit_compile=jit_compile)
        tf.function(lambda x, step=step: strategy.run(step, [x]))(tf.zeros([]))
        assert chosen == [expected]


@pytest.mark.parametrize("jit_compile", [False, True])
def test_auto_in_the_step_of_keras(jit_compile):
    chosen = []

    def loss(labels, outputs):
        chosen.append(choose_matcher("AUTO"))
        return tf.reduce_mean(outputs - labels)

    model = tf_keras.Sequential([tf_keras.layers.Dense(1)])
    # AutoGraph would rewrite all of tf_keras, to no effect.
    model.train_step = tf.autograph.experimental.do_not_convert(model.train_step)
    model.compile("sgd", loss, jit_compile=jit_compile)
    model.fit(tf.ones([2, 3]), tf.ones([2, 1]), verbose=0)
    assert set(chosen) == {"IN_GRAPH" if jit_compile else "HOST"}


def test_auto_on_a_tpu(monkeypatch):
    """The trace of TPUStrategy.run, and what comes before it."""
    with tf.Graph().as_default():
        pivot = tf.no_op()
        context = tpu_replication.TPUReplicateContext("cluster", 2, pivot=pivot)
        context.Enter()
        assert choose_matcher("AUTO") == "IN_GRAPH"
        context.Exit()
        assert choose_matcher("AUTO") == "HOST"
    strategy = object.__new__(tf.distribute.TPUStrategy)
    monkeypatch.setattr(tf.distribute, "get_strategy", lambda: strategy)
    assert choose_matcher("AUTO") == "IN_GRAPH"
    with pytest.raises(InputError, match="loss.matcher must be AUTO or IN_GRAPH"):
        choose_matcher("HOST")


def test_the_host_cannot_be_compiled(random_case, make_loss):
    loss = make_loss(random_case.classes, num_layers=2, matcher="HOST")
    compiled = tf.function(loss, jit_compile=True, autograph=False)
    with pytest.raises(InputError, match="loss.matcher must be AUTO or IN_GRAPH.*HOST"):
        compiled(random_case.targets, random_case.predictions)
