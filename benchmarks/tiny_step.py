"""Claim: a training step of `scenes/tiny` takes 0.55 of the time of an earlier commit.

    python benchmarks/tiny_step.py --base OTHER/.venv/bin/python [--rounds 12]
        [--config scenes/tiny] [--batch 8] [--losses 20] [--set FIELD=VALUE ...]

OTHER is a checkout of the earlier commit with its environment (`git worktree add OTHER
ec2c760`, then `make .venv/installed` there). Both train the network of *its* config on
the same made-up images, in processes of their own that take turns; each uses the
devices of its own config. First the losses of `--losses` steps from the same weights
are compared, with all pixels in the contrastive loss, because which ones are sampled
depends on the graph; then `--rounds` rounds of a few steps are timed, as the config has
it.
"""

from __future__ import annotations

import argparse
import os
import pathlib
import pickle
import statistics
import subprocess
import sys
import tempfile
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")

ALL_PIXELS = "loss.contrastive_pixels=1000000"


def made_up_batch(config, batch: int, seed: int):
    """Images of noise with masks that are cells around random points, and their labels.

    Returns:
      images [B, H, W, 3] uint8; classes [B, H, W] and mask ids [B, H, W] int32;
      classes of the masks [B, G] int32.
    """
    import numpy as np

    rng = np.random.default_rng(seed)
    height, width = config.data.crop_height_pixels, config.data.crop_width_pixels
    num_masks = min(config.data.max_masks, 12)
    points = rng.uniform(0, 1, (batch, num_masks, 2)) * (height, width)
    grid = np.stack(np.meshgrid(np.arange(height), np.arange(width), indexing="ij"), -1)
    ids = np.stack(
        [np.square(grid[:, :, None] - p).sum(-1).argmin(-1) for p in points]
    ).astype(np.int32)
    classes = np.zeros((batch, config.data.max_masks), np.int32)
    classes[:, :num_masks] = rng.integers(
        1, config.model.num_classes + 1, (batch, num_masks)
    )
    semantic = np.take_along_axis(classes, ids.reshape(batch, -1), 1).reshape(ids.shape)
    colors = rng.integers(0, 200, (batch, num_masks, 3))
    images = np.stack([c[i] for c, i in zip(colors, ids, strict=True)])
    images = images + rng.integers(0, 56, images.shape)
    return images.astype(np.uint8), semantic, ids, classes


class Worker:
    """One checkout, in a process of its own, asked by pickles over pipes."""

    def __init__(self, python: str):
        # Outside the checkouts, or `python` would import the one it stands in.
        self._process = subprocess.Popen(
            [python, str(pathlib.Path(__file__).resolve()), "--worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=tempfile.gettempdir(),
        )

    def ask(self, request: str, *arguments):
        """Calls `request` of `serve` there and returns what it returns."""
        pickle.dump((request, arguments), self._process.stdin)
        self._process.stdin.flush()
        return pickle.load(self._process.stdout)

    def close(self) -> None:
        """Ends the process."""
        self._process.stdin.close()
        self._process.wait()


def serve() -> None:
    """Answers requests on standard input, in the environment of one checkout."""
    answers, sys.stdout = os.fdopen(os.dup(1), "wb"), sys.stderr
    os.dup2(2, 1)
    requests = {"settings": settings, "prepare": prepare}
    while True:
        try:
            name, arguments = pickle.load(sys.stdin.buffer)
        except EOFError:
            return
        answer = requests[name](*arguments)
        if name == "prepare":
            requests |= answer
            answer = None
        pickle.dump(answer, answers)
        answers.flush()


def settings(config: str, changes: list[str]) -> tuple[str, str]:
    """The whole experiment of a config and its devices, as text."""
    from google.protobuf import text_format

    from cmt.config import load_experiment

    experiment = load_experiment(config, changes)
    devices = text_format.MessageToString(experiment.trainer.strategy)
    experiment.trainer.ClearField("strategy")
    return text_format.MessageToString(experiment), devices


def made_up_dataset(experiment, batch: int, count: int = 20):
    """Some batches over and over; reading files has a benchmark of its own."""
    import numpy as np
    import tensorflow as tf

    from cmt.io.tuning import untuned
    from cmt.outputs import Targets

    batches = []
    for seed in range(count):
        images, *labels = made_up_batch(experiment, batch, seed)
        targets = Targets(*labels, np.arange(batch, dtype=np.int32))
        batches.append((tf.constant(images), targets._make(map(tf.constant, targets))))
    stacked = tf.nest.map_structure(lambda *parts: tf.stack(parts), *batches)
    return untuned(tf.data.Dataset.from_tensor_slices(stacked).repeat())


def prepare(experiment_text: str, devices: str, batch: int, weights: list | None):
    """Builds a trainer; returns what can be asked of it."""
    import tf_keras
    from google.protobuf import text_format

    from cmt.factory import build_loss
    from cmt.protos import experiment_pb2
    from cmt.trainer import factory
    from cmt.trainer.trainer import Trainer

    experiment = text_format.Parse(experiment_text, experiment_pb2.ExperimentConfig())
    text_format.Merge(devices, experiment.trainer.strategy)
    experiment.trainer.global_batch_size = batch
    strategy = factory.build_strategy(experiment.trainer.strategy)
    tf_keras.utils.set_random_seed(0)
    with strategy.scope():
        network = factory.build_network(experiment)
        if weights is not None:
            named = dict(weights)
            if sorted(named) != sorted(v.name for v in network.variables):
                raise ValueError("the networks differ in the names of their variables")
            for variable in network.variables:
                variable.assign(named[variable.name])
        loss = build_loss(experiment.model, experiment.loss)
        trainer = Trainer(
            network,
            loss,
            **factory.build_optimizers(experiment.trainer, network),
            global_batch_size=batch,
            clip_global_norm=experiment.trainer.optimizer.clip_global_norm,
        )
    one_by_one = iter(made_up_dataset(experiment, batch))
    step = trainer.make_train_function()

    def losses() -> dict[str, float]:
        trainer.loss_meter.reset()
        fit(1)
        return trainer.loss_meter.means()

    def fit(steps: int) -> None:
        for _ in range(steps):
            step(one_by_one)

    def timed(steps: int) -> float:
        start = time.perf_counter()
        fit(steps)
        trainer.step.numpy()
        return (time.perf_counter() - start) / steps

    def read_weights() -> list:
        return [(v.name, v.numpy()) for v in network.variables]

    return {"losses": losses, "timed": timed, "weights": read_weights}


def compare_losses(base: Worker, own: Worker, experiment: str, options) -> None:
    """Prints the largest difference of a term in the steps, and of the total."""
    base.ask("prepare", experiment, "", options.batch, None)
    own.ask("prepare", experiment, "", options.batch, base.ask("weights"))
    worst = {}
    for step in range(options.losses):
        theirs, ours = base.ask("losses"), own.ask("losses")
        for name in theirs:
            difference = abs(theirs[name] - ours[name]) / max(1.0, abs(theirs[name]))
            worst[name] = max(worst.get(name, (0.0, 0)), (difference, step + 1))
    difference, step = max(worst.values())
    print(f"losses of {options.losses} steps differ by at most {difference:.1e}")
    print(f"  (relative to the loss where that is above 1), in step {step}; by term:")
    for name, (difference, step) in sorted(worst.items()):
        print(f"  {name:28} {difference:.1e} in step {step}")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--base", metavar="PYTHON")
    parser.add_argument("--config", default="scenes/tiny")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--steps", type=int, default=5, help="of a round")
    parser.add_argument("--losses", type=int, default=20, help="steps; 0 for none")
    parser.add_argument("--set", dest="changes", action="append", default=[])
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        serve()
        return

    def workers() -> tuple[Worker, Worker]:
        return Worker(options.base), Worker(sys.executable)

    if options.losses:
        base, own = workers()
        changes = [*options.changes, ALL_PIXELS]
        experiment, _ = base.ask("settings", options.config, changes)
        compare_losses(base, own, experiment, options)
        base.close()
        own.close()
    base, own = workers()
    experiment, their_devices = base.ask("settings", options.config, options.changes)
    _, devices = own.ask("settings", options.config, [])
    base.ask("prepare", experiment, their_devices, options.batch, None)
    own.ask("prepare", experiment, devices, options.batch, None)
    for worker in (base, own):
        worker.ask("timed", 2)
    pairs = []
    for _ in range(options.rounds):
        pairs.append(
            (base.ask("timed", options.steps), own.ask("timed", options.steps))
        )
    ratios = [ours / theirs for theirs, ours in pairs]
    theirs, ours = (
        1e3 * statistics.median(times) for times in zip(*pairs, strict=True)
    )
    print(
        f"step of {options.config}: ratio {statistics.median(ratios):.2f}"
        f" (rounds {min(ratios):.2f} to {max(ratios):.2f});"
        f" {ours:.0f} ms here, {theirs:.0f} ms at the base"
    )
    base.close()
    own.close()


if __name__ == "__main__":
    main()
