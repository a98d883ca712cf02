"""Claim: the whole loss takes at most half the time and memory of the one-hot way.

    python benchmarks/loss.py [--repeats 15] [--ratios-only]

All terms of one image, forward and backward: main output 161 x 161, the affinity
logits of six layers 41 x 41 with labels taken by striding, 128 centers, 128 masks at
most, 133 classes, 4096 contrasted pixels. Against `tests/losses/straightforward.py`,
under a plain tf.function and compiled by XLA.

Time: lower quartiles of runs that take turns, as what else the machine does only adds
to it. Memory: a fresh process a figure, which runs the step once, frees the result,
then reads by how much the resident memory (VmHWM of /proc, reset before) rises in one
more step, gradients included. Freed tensors go back to the system at once there; see
`peak_memory.py`.
Equality: terms and gradients run eagerly on the same draw of pixels; the difference is
relative to the term, or to the largest entry of the gradient.

Rounding: what products of bfloat16 change that the loss has on a TPU, seen on this
CPU under XLA, where bfloat16 is multiplied exactly. Terms and gradients as above; not
those of the pixel features, whose pixels are drawn anew and whose products are float32.

Matching: what AUTO chooses without XLA, `cmt.matching.masks.assign` in a graph, against
SciPy's `linear_sum_assignment` on the real rows, image by image, for a batch of 8 with
12 masks an image; a fiftieth of a graph with 50 of them, one after the other. The
executor hands a long op to another thread: where other processes hold the cores, the
wait for that thread can take longer than the matching.

All draws are from seed 0. Compare ratios, not milliseconds, across machines and days.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import pathlib
import statistics
import subprocess
import sys
import time
import types
from collections.abc import Callable
from unittest import mock

os.environ.setdefault("TF_USE_LEGACY_KERAS", "1")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
import peak_memory
import tensorflow as tf
from scipy.optimize import linear_sum_assignment

from cmt.losses import PanopticLoss, regions
from cmt.matching.masks import assign
from cmt.outputs import LayerPredictions, Predictions, Targets

_CENTERS = _MASKS = 128
_CLASSES = 133
_REAL_MASKS = 30
_LAYERS = 6
_SIZES = {"labels": 641, "main": 161, "layer": 41}
_FORMULATIONS = ("lean", "one-hot")
_HOST_OPS = 50

Step = Callable[[Targets, Predictions], tuple[dict[str, tf.Tensor], list[tf.Tensor]]]


def straightforward() -> types.ModuleType:
    """tests/losses/straightforward.py."""
    root = pathlib.Path(__file__).resolve().parent.parent
    spec = importlib.util.spec_from_file_location(
        "straightforward", root / "tests" / "losses" / "straightforward.py"
    )
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def make_loss() -> PanopticLoss:
    """The loss with the weights of the paper."""
    return PanopticLoss(
        num_classes=_CLASSES,
        num_layers=_LAYERS,
        pq_class_weight=3.0,
        pq_mask_weight=3.0,
        mask_id_weight=0.3,
        pixel_loss="PIXEL_CONTRASTIVE",
        pixel_loss_weight=1.0,
        pixel_loss_temperature=0.3,
        contrastive_pixels=4096,
        contrastive_sampling_power=1.5,
        mask_approximation_weight=1.0,
        semantic_weight=1.0,
        layer_weight=1.0,
    )


def make_inputs() -> tuple[Targets, Predictions]:
    """One image: 30 masks, each nearest to its seed; a crowd and a strip of void."""
    rng = np.random.default_rng(0)
    size = _SIZES["labels"]
    seeds = rng.uniform(0, size, [_REAL_MASKS, 2]).astype(np.float32)
    rows, columns = np.mgrid[:size, :size].astype(np.float32)
    distances = [(rows - r) ** 2 + (columns - c) ** 2 for r, c in seeds]
    mask_ids = np.argmin(distances, axis=0).astype(np.int32)
    classes = np.zeros([_MASKS], np.int32)
    classes[:_REAL_MASKS] = rng.integers(1, _CLASSES + 1, _REAL_MASKS)
    semantic = classes[mask_ids]
    mask_ids[:60] = -1
    semantic[:30] = 0

    def normal(*shape: int) -> tf.Tensor:
        return tf.constant(rng.normal(size=[1, *shape]), tf.float32)

    main, layer = [_SIZES["main"]] * 2, [_SIZES["layer"]] * 2
    layers = tuple(
        LayerPredictions(
            2.0 * normal(*layer, _CENTERS), tf.sigmoid(normal(_CENTERS, 8, 2))
        )
        for _ in range(_LAYERS)
    )
    predictions = Predictions(
        mask_logits=3.0 * normal(*main, _CENTERS),
        class_logits=normal(_CENTERS, _CLASSES + 1),
        pixel_features=tf.math.l2_normalize(normal(*main, 128), axis=-1),
        semantic_logits=normal(*main, _CLASSES + 1),
        layers=layers,
    )
    labels = (tf.constant(x[np.newaxis]) for x in (semantic, mask_ids, classes))
    return Targets(*labels), predictions


def make_step(formulation: str) -> Step:
    """Terms, and the gradient of the weighted total in each prediction."""
    loss = make_loss()
    terms_of = loss.terms
    if formulation == "one-hot":
        dense = straightforward()
        terms_of = lambda *inputs: dense.straightforward_terms(loss, *inputs)  # noqa: E731

    def step(targets: Targets, predictions: Predictions):
        flat = [x for x in tf.nest.flatten(predictions) if x is not None]
        with tf.GradientTape() as tape:
            tape.watch(flat)
            terms = terms_of(targets, predictions)
            total = tf.reduce_sum(loss.total(terms))
        return terms, tape.gradient(total, flat)

    return step


def largest_difference() -> float:
    """Of terms and gradients of the two formulations, relative; see above."""
    inputs = make_inputs()
    results = []
    for formulation in _FORMULATIONS:
        tf.random.set_seed(0)
        results.append(make_step(formulation)(*inputs))
    (terms, gradients), (expected_terms, expected_gradients) = results
    differences = []
    for name, expected in expected_terms.items():
        scale = np.abs(expected.numpy()).max()
        differences.append(np.abs(terms[name] - expected).max() / scale)
    for ours, reference in zip(gradients, expected_gradients, strict=True):
        scale = np.abs(reference.numpy()).max()
        differences.append(np.abs(ours - reference).max() / scale)
    return float(max(differences))


def rounding_difference() -> float:
    """Between the loss as a TPU and as another device computes it; see above."""
    inputs = make_inputs()
    results = []
    for on_tpu in (False, True):
        with mock.patch.object(regions, "is_for_tpu", lambda on_tpu=on_tpu: on_tpu):
            step = tf.function(make_step("lean"), jit_compile=True, autograph=False)
            terms, gradients = step(*inputs)
        terms.pop("pixel_contrastive")
        fields = [name for name, x in inputs[1]._asdict().items() if tf.is_tensor(x)]
        gradients.pop(fields.index("pixel_features"))
        results.append([*terms.values(), *gradients])
    return max(
        float(np.abs(ours - exact).max() / (np.abs(exact).max() or 1.0))
        for exact, ours in zip(*results, strict=True)
    )


def lower_quartiles(functions: list[Callable[[], object]], repeats: int) -> list[float]:
    """Milliseconds of functions that take turns, after two calls each."""
    times: list[list[float]] = [[] for _ in functions]
    for turn in range(repeats + 2):
        for function, taken in zip(functions, times, strict=True):
            start = time.perf_counter()
            function()
            if turn > 1:
                taken.append(1e3 * (time.perf_counter() - start))
    return [statistics.quantiles(taken, n=4)[0] for taken in times]


def step_times(jit_compile: bool, repeats: int) -> list[float]:
    """Milliseconds of a step of each formulation."""
    inputs = make_inputs()

    def runner(formulation: str) -> Callable[[], object]:
        step = tf.function(make_step(formulation), jit_compile=jit_compile)
        return lambda: [x.numpy() for x in step(*inputs)[0].values()]

    return lower_quartiles([runner(name) for name in _FORMULATIONS], repeats)


def print_peak_memory(formulation: str, jit_compile: bool) -> None:
    """Prints the MiB that a step takes at most, on top of what is resident."""
    inputs = make_inputs()
    step = tf.function(make_step(formulation), jit_compile=jit_compile)

    def run():
        result = step(*inputs)
        [x.numpy() for x in result[0].values()]
        return result

    print(peak_memory.rise_mib(run))


def memory_of(formulation: str, jit_compile: bool) -> float:
    """MiB of a step in a fresh process."""
    command = [sys.executable, __file__, "--peak-memory-of", formulation]
    done = subprocess.run(
        command + ["--jit"] * jit_compile,
        env={**os.environ, **peak_memory.RETURN_MEMORY},
        capture_output=True,
        text=True,
    )
    if done.returncode:
        raise SystemExit(done.stderr)
    return float(done.stdout)


def matching_times(repeats: int) -> list[float]:
    """Milliseconds of `assign` in a graph, and of SciPy alone."""
    rng = np.random.default_rng(0)
    shape = [8, _MASKS, _CENTERS]
    # Minus dice times class probability: few centers fit a mask, the rest hardly.
    costs = -(rng.beta(0.3, 4.0, shape) * rng.beta(0.2, 5.0, shape)).astype(np.float32)
    real = np.broadcast_to(np.arange(_MASKS) < 12, shape[:2]).copy()

    @tf.function
    def host_ops(costs: tf.Tensor, real: tf.Tensor) -> tf.Tensor:
        columns = assign(costs, real)
        for _ in range(_HOST_OPS - 1):  # A step has one: they must not overlap.
            with tf.control_dependencies([columns]):
                columns = assign(costs, real)
        return columns

    def scipy() -> None:
        for _ in range(_HOST_OPS):
            for cost, is_real in zip(costs, real, strict=True):
                linear_sum_assignment(cost[np.flatnonzero(is_real)])

    inputs = tf.constant(costs), tf.constant(real)

    functions = [lambda: host_ops(*inputs).numpy(), scipy]
    return [taken / _HOST_OPS for taken in lower_quartiles(functions, repeats)]


def main() -> None:
    """Prints one line per claim."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument(
        "--ratios-only", action="store_true", help="print ratios, no times"
    )
    parser.add_argument("--peak-memory-of", help=argparse.SUPPRESS)
    parser.add_argument("--jit", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.peak_memory_of:
        print_peak_memory(args.peak_memory_of, args.jit)
        return

    def line(claim: str, values: list[float], unit: str, limit: str) -> None:
        text = f"{claim:34} {values[0] / values[1]:5.2f} x"
        if not args.ratios_only:
            text += f" ({values[0]:.4g} and {values[1]:.4g} {unit}; at most {limit})"
        print(text, flush=True)

    if not args.ratios_only:
        print(
            f"seed 0, {args.repeats} turns, {os.cpu_count()} CPU cores,"
            f" TensorFlow {tf.__version__}"
        )
    print(f"largest difference from one-hot: {largest_difference():.1e} (at most 1e-4)")
    print(f"largest change by rounding: {rounding_difference():.1e} (at most 1e-3)")
    for jit_compile, name in ((False, "plain"), (True, "XLA")):
        times = step_times(jit_compile, args.repeats)
        line(f"time, {name}, lean to one-hot", times, "ms", "0.5")
        peaks = [memory_of(f, jit_compile) for f in _FORMULATIONS]
        line(f"peak memory, {name}, lean to one-hot", peaks, "MiB", "0.5")
    times = matching_times(4 * args.repeats)
    line("matching on the host to SciPy", times, "ms", "2, cores idle")


if __name__ == "__main__":
    main()
