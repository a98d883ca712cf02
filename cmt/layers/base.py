"""What all layers and models of the network share: a config of their own."""

from __future__ import annotations

import contextlib
import functools
import inspect
from collections.abc import Callable, Iterator

import tensorflow as tf
import tf_keras

from cmt.errors import InputError

# Of every Keras layer; Keras keeps them itself.
_KERAS_ARGUMENTS = ("name", "dtype", "trainable", "autocast")


def check_is_of_tf_keras(argument: str, value: object) -> None:
    """Refuses an object of the other Keras, which tf_keras cannot use.

    Args:
      argument: what the value was given as.
      value: any object.

    Raises:
      InputError: its class comes from the package `keras`: Keras 3, or the `tf.keras`
        of TensorFlow 2.15 where TF_USE_LEGACY_KERAS is not set.

    Example:
      >>> check_is_of_tf_keras("optimizer", tf_keras.optimizers.SGD())
    """
    kind = type(value)
    # Of the bases too: legacy optimizers of tf_keras say that they are of `keras`.
    packages = {base.__module__.split(".")[0] for base in kind.__mro__}
    if "keras" in packages and "tf_keras" not in packages:
        raise InputError(
            f"{argument} must be of tf_keras, as the network is; got {kind.__name__} of"
            " the package keras (tf.keras): take the one of `import tf_keras`, or set"
            " TF_USE_LEGACY_KERAS=1 before TensorFlow is imported"
        )


@contextlib.contextmanager
def policy_scope(policy: object | None) -> Iterator[None]:
    """Layers made inside have this dtype policy, and so have the layers they make.

    Args:
      policy: a policy of tf_keras or its name, or a floating-point type; None leaves
        the one that tf_keras is set to.

    Example:
      >>> with policy_scope("mixed_bfloat16"):
      ...     layer = tf_keras.layers.Dense(3)
      >>> layer.compute_dtype
      'bfloat16'
    """
    mixed_precision = tf_keras.mixed_precision
    before = mixed_precision.global_policy()
    if policy is not None and not isinstance(policy, str | mixed_precision.Policy):
        policy = tf.as_dtype(policy).name
    mixed_precision.set_global_policy(before if policy is None else policy)
    try:
        yield
    finally:
        mixed_precision.set_global_policy(before)


class Configured:
    """A layer or model that remembers the arguments it was made with.

    So that `get_config` and `from_config`, and with them `tf_keras.models.clone_model`
    and the `.keras` format, work for every subclass without code of its own. The layers
    that a constructor makes have the `dtype` it was given.
    """

    def __init_subclass__(cls, **kwargs):
        super().__init_subclass__(**kwargs)
        tf_keras.saving.register_keras_serializable(package="cmt")(cls)
        if "__init__" in vars(cls):
            cls.__init__ = _under_its_policy(cls.__init__)

    def __new__(cls, *args, **kwargs):
        check_is_of_tf_keras("dtype", kwargs.get("dtype"))
        instance = super().__new__(cls, *args, **kwargs)
        try:
            bound = inspect.signature(cls.__init__).bind(instance, *args, **kwargs)
        except TypeError:
            # A copy, whose attributes follow; or `__init__` is about to raise this.
            return instance
        arguments = dict(list(bound.arguments.items())[1:])
        arguments.update(arguments.pop("kwargs", {}))
        # Past Keras, which would track layers among them a second time.
        object.__setattr__(
            instance,
            "_arguments",
            {k: v for k, v in arguments.items() if k not in _KERAS_ARGUMENTS},
        )
        return instance

    def get_config(self) -> dict:
        """Arguments of the constructor, as Keras serialises them."""
        serialize = tf_keras.saving.serialize_keras_object
        own = {name: serialize(value) for name, value in self._arguments.items()}
        return {**tf_keras.layers.Layer.get_config(self), **own}

    @classmethod
    def from_config(cls, config: dict):
        """A new layer or model, without the weights, from what `get_config` gave."""
        deserialize = tf_keras.saving.deserialize_keras_object
        return cls(**{name: deserialize(value) for name, value in config.items()})


def _under_its_policy(constructor: Callable) -> Callable:
    @functools.wraps(constructor)
    def construct(self, *args, **kwargs):
        with policy_scope(kwargs.get("dtype")):
            constructor(self, *args, **kwargs)

    return construct


class Layer(Configured, tf_keras.layers.Layer):
    """A Keras layer with a config of its own."""
