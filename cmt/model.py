"""CMTDeepLab, and two of them as a recursive network: image -> Predictions."""

from __future__ import annotations

import types

import tensorflow as tf
import tf_keras

from cmt.backbone import Backbone
from cmt.decoder import Decoder
from cmt.heads import PanopticHead, SemanticBranch
from cmt.layers.base import Configured, check_is_of_tf_keras
from cmt.layers.conv import plain_gradients
from cmt.outputs import Predictions


class PanopticModel(Configured, tf_keras.Model):
    """What the networks share: an ordinary Keras model of `Predictions`.

    Images are [B, H, W, 3] RGB, uint8 or float, 0 to 255, of static H and W. Sizes
    2^k m + 1 (97, 641, 1281) keep the pixels of all strides aligned.
    """

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self._autocast = False  # Or images lose bits before they are normalised.
        # In a container that Keras does not look into: no part of the network.
        self._untracked = types.SimpleNamespace(
            mean_loss=tf_keras.metrics.Mean(name="loss")
        )

    # AutoGraph would rewrite all of tf_keras, which takes a minute, for nothing.
    @tf.autograph.experimental.do_not_convert
    def build(self, input_shape):
        if None in tuple(input_shape)[1:]:
            raise ValueError(
                "height and width must be known when the network is built, as in "
                f"model.build((None, 641, 641, 3)); got {tuple(input_shape)}"
            )
        super().build(input_shape)

    def compile(self, optimizer="rmsprop", *args, **kwargs):
        """As in Keras, with an optimizer of tf_keras or the name of one."""
        check_is_of_tf_keras("optimizer", optimizer)
        super().compile(optimizer, *args, **kwargs)

    def compile_from_config(self, config):
        """Compiles a loaded model; Keras leaves that to whoever overrides `compile`."""
        config = _in_tf_keras(config)
        self.compile(**tf_keras.saving.deserialize_keras_object(config))
        # The state of the optimizer is read next, into variables that must exist. A
        # legacy optimizer has no `build`, and its state is not in a `.keras` file.
        if self.built and hasattr(self.optimizer, "build"):
            self.optimizer.build(self.trainable_variables)

    def save(self, filepath, *args, **kwargs):
        """As in Keras, to a `.keras` file."""
        if not str(filepath).endswith(".keras"):
            raise ValueError(
                f"{filepath}: save to a name that ends in .keras, or the weights alone "
                "with save_weights; `cmt export` makes a SavedModel for serving"
            )
        super().save(filepath, *args, **kwargs)

    @tf.autograph.experimental.do_not_convert
    def train_step(self, data):
        return super().train_step(data)

    @tf.autograph.experimental.do_not_convert
    def test_step(self, data):
        return super().test_step(data)

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None):
        """The compiled loss on the whole structured output, as `fit` calls it."""
        if sample_weight is not None:
            raise ValueError(
                "sample weights are not supported: mark pixels as void instead"
            )
        loss = self.loss(y, y_pred) + sum(self.losses)
        self._untracked.mean_loss.update_state(loss)
        return loss

    def compute_metrics(self, x, y, y_pred, sample_weight):
        """The mean loss: Keras's own metrics want targets shaped like outputs."""
        return {"loss": self._untracked.mean_loss.result()}

    @property
    def metrics(self) -> list[tf_keras.metrics.Metric]:
        """What `fit` resets at the beginning of an epoch."""
        return [self._untracked.mean_loss]

    @property
    def backbone_variables(self) -> list[tf.Variable]:
        """Trainable variables of the pretrained part, which learns more slowly."""
        raise TypeError(f"{type(self).__name__} must define `backbone_variables`")

    @property
    def other_variables(self) -> list[tf.Variable]:
        """Trainable variables that are not in `backbone_variables`."""
        backbone = {id(variable) for variable in self.backbone_variables}
        return [v for v in self.trainable_variables if id(v) not in backbone]


def _in_tf_keras(config: object) -> object:
    """A serialized config whose classes of Keras are looked up in tf_keras.

    tf_keras writes `keras` for its own package, and looks that up in a table that
    `tf.keras` of TensorFlow 2.15 shares: the optimizer could be of either.
    """
    if isinstance(config, dict):
        changed = {name: _in_tf_keras(value) for name, value in config.items()}
        module = changed.get("module")
        if isinstance(module, str) and module.split(".")[0] == "keras":
            changed["module"] = f"tf_{module}"
        if isinstance(changed.get("learning_rate"), dict):
            # The optimizer would look its schedule up in `keras`, whatever is written.
            changed["learning_rate"] = tf_keras.saving.deserialize_keras_object(
                changed["learning_rate"]
            )
        return changed
    if isinstance(config, list | tuple):
        return [_in_tf_keras(value) for value in config]
    return config


class CMTDeepLab(PanopticModel):
    """Clustering Mask Transformer (Fig. 2).

    Args:
      backbone: image to stages.
      decoder: stages and centers to stride 4.
      head: masks and classes.
      semantic_branch: supervises training; None leaves it out.
      num_centers: N.
      center_channels: of a center.
      num_points: M of a reference mask; 0 where location is off.

    Example (`build_model` puts the parts together):
      >>> import cmt
      >>> model = cmt.build_model("scenes/tiny")
      >>> model(tf.zeros([1, 97, 97, 3])).mask_logits.shape
      TensorShape([1, 25, 25, 24])
    """

    def __init__(
        self,
        backbone: Backbone,
        decoder: Decoder,
        head: PanopticHead,
        *,
        semantic_branch: SemanticBranch | None,
        num_centers: int,
        center_channels: int,
        num_points: int,
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.backbone = backbone
        self.decoder = decoder
        self.head = head
        self.semantic_branch = semantic_branch
        self.cluster_centers = self.add_weight(
            name=f"{self.name}/cluster_centers",
            shape=[num_centers, center_channels],
            initializer=tf_keras.initializers.TruncatedNormal(stddev=1.0),
        )
        # Paper: the first e is not said. Here: a linear function of the first centers.
        self.reference_embedding = (
            tf_keras.layers.Dense(
                2 * num_points, dtype=tf.float32, name="reference_embedding"
            )
            if num_points
            else None
        )

    def call(
        self,
        images: tf.Tensor,
        training: bool | None = None,
        stride4_features: tf.Tensor | None = None,
    ) -> Predictions:
        """Predictions; `stride4_features` of a pass before join stage 2 (RFN)."""
        with plain_gradients(training is False):
            return self.forward(images, training, stride4_features)

    @tf.autograph.experimental.do_not_convert
    def forward(
        self,
        images: tf.Tensor,
        training: bool | None,
        stride4_features: tf.Tensor | None,
    ) -> Predictions:
        """What `call` does, for a network that this one is a part of."""
        images = tf.cast(images, tf.float32) / 127.5 - 1.0
        images = tf.cast(images, self.compute_dtype)
        stages = self.backbone(
            images, stride4_features=stride4_features, training=training
        )
        centers = tf.convert_to_tensor(self.cluster_centers)
        centers = tf.tile(centers[tf.newaxis], [tf.shape(images)[0], 1, 1])
        embedding = (
            None
            if self.reference_embedding is None
            else self.reference_embedding(centers)
        )
        centers = tf.cast(centers, self.compute_dtype)
        decoded = self.decoder(stages, centers, embedding, training=training)
        mask_logits, class_logits, pixel_features = self.head(
            decoded.pixel_features,
            decoded.cluster_centers,
            decoded.affinity_logits,
            training=training,
        )
        semantic_logits = None
        if self.semantic_branch is not None:
            semantic_logits = self.semantic_branch(
                decoded.semantic_features, stages, training=training
            )
        return Predictions(
            mask_logits,
            class_logits,
            pixel_features,
            semantic_logits,
            decoded.layers,
            decoded.pixel_features,
        )

    @property
    def backbone_variables(self) -> list[tf.Variable]:
        variables = list(self.backbone.trainable_variables)
        if self.decoder.stage5 is not None:
            for block in self.decoder.stage5.blocks:
                variables += block.trainable_variables
        return variables


class RecursiveCMTDeepLab(PanopticModel):
    """Recursive feature network (Sec. 3.4): two networks, weights not shared.

    The second sees the stride 4 output of the first, averaged with its own stage 2.
    Predictions are the second's; those of the first are in `first_pass`.

    Args:
      first: sees the image alone.
      second: sees the image and the features of the first.

    Example:
      >>> import cmt
      >>> first, second = (cmt.build_model("scenes/tiny") for _ in range(2))
      >>> predictions = RecursiveCMTDeepLab(first, second)(tf.zeros([1, 97, 97, 3]))
      >>> predictions.first_pass.mask_logits.shape
      TensorShape([1, 25, 25, 24])
    """

    def __init__(self, first: CMTDeepLab, second: CMTDeepLab, **kwargs):
        super().__init__(**kwargs)
        self.first = first
        self.second = second

    def call(self, images: tf.Tensor, training: bool | None = None) -> Predictions:
        with plain_gradients(training is False):
            return self._forward(images, training)

    @tf.autograph.experimental.do_not_convert
    def _forward(self, images, training):
        # Not by `__call__`: Keras would trace each model once more, to build it.
        with tf.name_scope(self.first.name):
            first = self.first.forward(images, training, None)
        with tf.name_scope(self.second.name):
            second = self.second.forward(images, training, first.stride4_features)
        self.first.built = self.second.built = True
        return second._replace(first_pass=first)

    @property
    def backbone_variables(self) -> list[tf.Variable]:
        return [*self.first.backbone_variables, *self.second.backbone_variables]
