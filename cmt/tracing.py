"""What is being traced, and for which device."""

from __future__ import annotations

import tensorflow as tf


def is_for_tpu() -> bool:
    """Whether what is being traced is under a TPUStrategy."""
    kinds = tf.distribute.TPUStrategy, tf.distribute.experimental.TPUStrategy
    return isinstance(tf.distribute.get_strategy(), kinds)


def is_host_out_of_reach() -> bool:
    """Whether what is being traced is for a TPU, or XLA must compile it."""
    if is_for_tpu():
        return True
    graph = tf.compat.v1.get_default_graph()
    while graph is not None:
        # TensorFlow marks the trace of a function to compile by such a context; Keras
        # finds it in this way, too.
        context = graph._get_control_flow_context()
        while context is not None:
            if context.IsXLAContext():
                return True
            context = context.outer_context
        graph = getattr(graph, "outer_graph", None)
    return False
