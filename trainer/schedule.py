"""The learning rate over the steps."""

from __future__ import annotations

import tensorflow as tf
import tf_keras


class PolynomialWithWarmup(tf_keras.optimizers.schedules.LearningRateSchedule):
    """multiplier * base * (1 - step / steps) ^ power after a linear warm-up from 0.

    The decay counts from step 0, as in DeepLab2, so the rate steps down a little
    where the warm-up ends. It is 0 from `steps` on.
    """

    def __init__(
        self,
        *,
        base: float,
        steps: int,
        warmup_steps: int,
        power: float = 0.9,
        multiplier: float = 1.0,
    ):
        """Keeps the numbers.

        Args:
          base: rate before decay, for the global batch.
          steps: length of the training, in steps.
          warmup_steps: length of the warm-up, in steps.
          power: exponent of the decay.
          multiplier: scales the whole curve; the backbone has one of its own.
        """
        super().__init__()
        self.base = base
        self.steps = steps
        self.warmup_steps = warmup_steps
        self.power = power
        self.multiplier = multiplier

    def __call__(self, step: tf.Tensor | int) -> tf.Tensor:
        """Returns the rate of the update that follows `step` updates, [] float32."""
        step = tf.cast(step, tf.float32)
        left = 1.0 - tf.minimum(step / float(self.steps), 1.0)
        rate = self.base * tf.pow(left, self.power)
        if self.warmup_steps:
            warmup = self.base * step / float(self.warmup_steps)
            rate = tf.where(step < float(self.warmup_steps), warmup, rate)
        return self.multiplier * rate

    def get_config(self) -> dict[str, float]:
        return {
            "base": self.base,
            "steps": self.steps,
            "warmup_steps": self.warmup_steps,
            "power": self.power,
            "multiplier": self.multiplier,
        }
