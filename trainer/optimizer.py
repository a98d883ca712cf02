"""Update rules. The only module that imports tensorflow-addons."""

from __future__ import annotations

import os
import types
import warnings
from collections.abc import Sequence

import tensorflow as tf
import tf_keras

from cmt.errors import InputError

LOOKAHEAD_PERIOD = 6  # steps between looks ahead; MaX-DeepLab, Sec. 4
LOOKAHEAD_STEP_SIZE = 0.5


def has_weight_decay(variable: tf.Variable) -> bool:
    """Whether weight decay applies to a variable: to kernels, and to nothing else.

    Not to norms, biases, tables of relative positions or cluster centers.
    """
    return variable.name.rsplit("/", 1)[-1].split(":")[0].endswith("kernel")


def build_optimizer(
    kind: str,
    *,
    variables: list[tf.Variable],
    learning_rate: tf_keras.optimizers.schedules.LearningRateSchedule,
    beta1: float = 0.9,
    beta2: float = 0.999,
    epsilon: float = 1e-7,
    weight_decay: float = 0.0,
    name: str = "optimizer",
) -> tf_keras.optimizers.Optimizer:
    """Builds the optimizer of one group of variables, in the scope of the strategy.

    Args:
      kind: "ADAM", "ADAMW", "RADAM_LOOKAHEAD" or "LAMB".
      variables: what the optimizer will update.
      learning_rate: schedule over the optimizer's own steps.
      beta1: decay of the first moment.
      beta2: decay of the second moment.
      epsilon: added to the root of the second moment.
      weight_decay: share of each kernel that a step subtracts, times the learning rate
        (decoupled); ADAM has none.
      name: prefix of the names of the optimizer's variables.

    Returns:
      An optimizer whose `apply_gradients` takes `experimental_aggregate_gradients`.

    Raises:
      InputError: `kind` needs tensorflow-addons, which is not installed.
    """
    moments = {"beta_1": beta1, "beta_2": beta2, "epsilon": epsilon}
    if kind == "RADAM_LOOKAHEAD":
        optimizer = _radam_lookahead(learning_rate, weight_decay, moments, name)
    elif kind == "LAMB":
        optimizer = _lamb(learning_rate, weight_decay, moments, name)
    elif kind in ("ADAM", "ADAMW"):
        decay = weight_decay if kind == "ADAMW" else 0.0
        optimizer = _Adam(learning_rate, weight_decay=decay, name=name, **moments)
    else:
        raise InputError(
            "trainer.optimizer.kind must be ADAM, ADAMW, RADAM_LOOKAHEAD or LAMB; "
            f"got {kind!r}"
        )
    # The optimizer would make them in the first step, which would then need a graph of
    # its own, and which cannot make any in several replicas.
    optimizer._create_all_weights(variables)
    return optimizer


class _Adam(tf_keras.optimizers.legacy.Adam):
    """Adam with decoupled weight decay, which changes nothing while `stopped` is true.

    It runs one fused operation a variable, where Keras's newer class runs thirty. While
    `stopped` is true, gradients of zero change nothing: selecting the old values after
    the update would copy all variables and moments on devices without XLA.
    """

    stopped: tf.Variable | None = None

    def __init__(self, learning_rate, *, weight_decay: float, **kwargs):
        super().__init__(learning_rate, **kwargs)
        self._weight_decay = weight_decay

    def _prepare_local(self, var_device, var_dtype, apply_state):
        super()._prepare_local(var_device, var_dtype, apply_state)
        if self.stopped is None:
            return
        stopped = self.stopped.read_value()
        numbers = apply_state[(var_device, var_dtype)]
        # Moments m + (0 - m) (1 - 1), the same for v, and a rate of 0.
        for name, value in (("lr_t", 0.0), ("beta_1_t", 1.0), ("beta_2_t", 1.0)):
            numbers[name] = tf.where(stopped, value, numbers[name])

    def _resource_apply_dense(self, grad, var, apply_state=None):
        if self._weight_decay and has_weight_decay(var):
            key = var.device, var.dtype.base_dtype
            numbers = (apply_state or {}).get(key) or self._fallback_apply_state(*key)
            # It runs before the update, because both change one variable.
            var.assign_sub(var * (self._weight_decay * numbers["lr_t"]))
        return super()._resource_apply_dense(grad, var, apply_state)


def change_nothing_while(
    stopped: tf.Variable,
    optimizer: tf_keras.optimizers.Optimizer,
    variables: Sequence[tf.Variable],
) -> list[tf.Variable]:
    """Makes an optimizer change nothing while `stopped` is true, where it can.

    Args:
      stopped: [] bool.
      optimizer: from `build_optimizer`.
      variables: what it updates.

    Returns:
      Variables that it changes all the same; the caller has to restore them.
    """
    if isinstance(optimizer, _Adam):
        optimizer.stopped = stopped
        return [optimizer.iterations]
    return [*variables, *optimizer.weights]


def _addons(kind: str) -> types.ModuleType:
    """Imports tensorflow-addons for a kind of optimizer."""
    # Without this variable, tensorflow-addons derives its classes from another Keras.
    os.environ["TF_USE_LEGACY_KERAS"] = "1"
    try:
        with warnings.catch_warnings():
            # On import it warns that it is no longer developed.
            warnings.simplefilter("ignore", UserWarning)
            import tensorflow_addons as tfa
    except ImportError as error:
        raise InputError(
            f"trainer.optimizer.kind {kind} needs tensorflow-addons, which cannot be "
            f"imported here ({str(error).splitlines()[0]}); it exists for TensorFlow "
            "2.15 on Python below 3.12: install it, or choose ADAM or ADAMW"
        ) from error
    return tfa


def _lamb(
    learning_rate: tf_keras.optimizers.schedules.LearningRateSchedule,
    weight_decay: float,
    moments: dict[str, float],
    name: str,
) -> tf_keras.optimizers.legacy.Optimizer:
    class KernelLamb(_addons("LAMB").optimizers.LAMB):
        """LAMB that decays kernels alone, and scales the steps of kernels alone."""

        def _do_use_weight_decay(self, variable):
            return has_weight_decay(variable)

        def _do_layer_adaptation(self, variable):
            return has_weight_decay(variable)

    return KernelLamb(learning_rate, weight_decay=weight_decay, name=name, **moments)


def _radam_lookahead(
    learning_rate: tf_keras.optimizers.schedules.LearningRateSchedule,
    weight_decay: float,
    moments: dict[str, float],
    name: str,
) -> tf_keras.optimizers.legacy.Optimizer:
    tfa = _addons("RADAM_LOOKAHEAD")

    class KernelDecayRectifiedAdam(tfa.optimizers.RectifiedAdam):
        """RectifiedAdam that leaves norms and biases out of the weight decay."""

        def _resource_apply_dense(self, grad, var, apply_state=None):
            self._has_weight_decay = weight_decay > 0 and has_weight_decay(var)
            return super()._resource_apply_dense(grad, var, apply_state)

    return tfa.optimizers.Lookahead(
        KernelDecayRectifiedAdam(learning_rate, weight_decay=weight_decay, **moments),
        sync_period=LOOKAHEAD_PERIOD,
        slow_step_size=LOOKAHEAD_STEP_SIZE,
        name=name,
    )
