"""The learning rate over the steps."""

from __future__ import annotations

import math

import tensorflow as tf
import tf_keras

SCHEDULES = ("POLYNOMIAL", "COSINE", "CONSTANT")


class LearningRate(tf_keras.optimizers.schedules.LearningRateSchedule):
    """A curve that begins at multiplier * base, after a linear warm-up from 0.

    POLYNOMIAL times (1 - step / steps) ^ power, COSINE times half of
    1 + cos(pi * step / steps); both are 0 from `steps` on. CONSTANT stays.
    The decay counts from step 0, as in DeepLab2, so the rate steps down a little
    where the warm-up ends.
    """

    def __init__(
        self,
        *,
        base: float,
        steps: int,
        warmup_steps: int,
        power: float = 0.9,
        multiplier: float = 1.0,
        kind: str = "POLYNOMIAL",
    ):
        """Keeps the numbers.

        Args:
          base: rate before decay, for the global batch.
          steps: length of the training, in steps.
          warmup_steps: length of the warm-up, in steps.
          power: exponent of POLYNOMIAL.
          multiplier: scales the whole curve; the backbone has one of its own.
          kind: one of `SCHEDULES`.

        Raises:
          ValueError: there is no curve of this kind.
        """
        super().__init__()
        if kind not in SCHEDULES:
            raise ValueError(f"kind must be one of {SCHEDULES}; got {kind!r}")
        self.base = base
        self.steps = steps
        self.warmup_steps = warmup_steps
        self.power = power
        self.multiplier = multiplier
        self.kind = kind

    def __call__(self, step: tf.Tensor | int) -> tf.Tensor:
        """Returns the rate of the update that follows `step` updates, [] float32."""
        step = tf.cast(step, tf.float32)
        done = tf.minimum(step / float(self.steps), 1.0)
        if self.kind == "POLYNOMIAL":
            rate = self.base * tf.pow(1.0 - done, self.power)
        elif self.kind == "COSINE":
            rate = self.base * 0.5 * (1.0 + tf.cos(math.pi * done))
        else:
            rate = self.base * tf.ones([])
        if self.warmup_steps:
            warmup = self.base * step / float(self.warmup_steps)
            rate = tf.where(step < float(self.warmup_steps), warmup, rate)
        return self.multiplier * rate

    def describe(self) -> str:
        """Returns the curve in words, such as for messages."""
        text = f"{self.multiplier * self.base:g}"
        if self.kind != "CONSTANT":
            text += f" falling to 0 at step {self.steps}"
        if self.warmup_steps:
            text += f" after {self.warmup_steps} steps of warm-up"
        return f"{text} ({self.kind})"

    def get_config(self) -> dict[str, float | str]:
        return {
            "base": self.base,
            "steps": self.steps,
            "warmup_steps": self.warmup_steps,
            "power": self.power,
            "multiplier": self.multiplier,
            "kind": self.kind,
        }
