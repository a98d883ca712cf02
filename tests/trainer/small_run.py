"""`python -m tests.trainer.small_run`: `cmt`, whose networks have two layers.

It starts in a fraction of the time of the real one, and draws wherever that does.
"""

from __future__ import annotations

import tensorflow as tf
import tf_keras

from cmt.cli.main import main
from cmt.layers.conv import Dropout, DropPath
from cmt.layers.norm import BatchNorm
from cmt.losses.contrastive import sample_pixels
from cmt.outputs import Predictions
from cmt.trainer import factory


class Network(tf_keras.Model):
    """Masks from colours, and classes that no image changes."""

    def __init__(self):
        super().__init__()
        # No bias: before a norm its gradient is rounding, of which Adam makes steps.
        self.backbone = tf_keras.layers.Conv2D(6, 1, strides=4, use_bias=False)
        self.norm = BatchNorm(synchronized=True)
        self.dropout, self.drop_path = Dropout(0.3), DropPath(0.3)
        self.head = self.add_weight(name="head", shape=[6, 11])

    def call(self, images, training=False):
        masks = self.norm(self.backbone(images / 255), training=training)
        masks = self.dropout(masks, training=training)
        masks += self.drop_path(tf.sin(masks), training=training)
        classes = tf.repeat(self.head[tf.newaxis], tf.shape(images)[0], axis=0)
        return Predictions(masks, classes, masks, None, ())

    @property
    def backbone_variables(self):
        return self.backbone.trainable_variables

    @property
    def other_variables(self):
        return [self.head, *self.norm.trainable_variables]


class Objective:
    """One term, of the classes and of the masks at sampled pixels."""

    def terms(self, targets, predictions):
        masks = predictions.mask_logits
        height, width, channels = masks.shape[1:]
        pixels = tf.reshape(masks, [-1, height * width, channels])
        one = tf.ones_like(pixels[..., 0])
        chosen = sample_pixels(
            tf.zeros_like(one, tf.int32), one, one, num_pixels=20, power=0.5
        )
        sampled = tf.gather(pixels, chosen, batch_dims=1) - 0.5
        masks = tf.reduce_mean(sampled**2, axis=[1, 2])
        return {"size": masks + tf.reduce_mean(predictions.class_logits**2, [1, 2])}

    def total(self, terms):
        return terms["size"]


def _build_network(experiment) -> Network:
    network = Network()
    size = experiment.data.crop_height_pixels
    network.build((None, size, size, 3))
    return network


if __name__ == "__main__":
    factory.build_network = _build_network
    factory.build_loss = lambda *_, **__: Objective()
    main()
