"""What all layers and models of the network share: a config of their own."""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Iterator

import tf_keras

# Of every Keras layer; Keras keeps them itself.
_KERAS_ARGUMENTS = ("name", "dtype", "trainable", "autocast")


@contextlib.contextmanager
def policy_scope(
    policy: tf_keras.mixed_precision.Policy | str | None,
) -> Iterator[None]:
    """Layers made inside have this dtype policy, and so have the layers they make.

    Args:
      policy: a policy or its name, such as "mixed_bfloat16"; None leaves the one that
        tf_keras is set to.
    """
    mixed_precision = tf_keras.mixed_precision
    before = mixed_precision.global_policy()
    mixed_precision.set_global_policy(before if policy is None else policy)
    try:
        yield
    finally:
        mixed_precision.set_global_policy(before)


class Configured:
    """A layer or model that remembers the arguments it was made with.

    So that `get_config` and `from_config`, and with them `tf_keras.models.clone_model`
    and the `.keras` format, work for every subclass without code of its own.
    """

    def __init_subclass__(cls, **kwargs):
        super().__init_subclass__(**kwargs)
        tf_keras.saving.register_keras_serializable(package="cmt")(cls)

    def __new__(cls, *args, **kwargs):
        instance = super().__new__(cls, *args, **kwargs)
        bound = inspect.signature(cls.__init__).bind(instance, *args, **kwargs)
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
        arguments = {name: deserialize(value) for name, value in config.items()}
        with policy_scope(arguments.get("dtype")):
            return cls(**arguments)


class Layer(Configured, tf_keras.layers.Layer):
    """A Keras layer with a config of its own."""
