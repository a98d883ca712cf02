"""A network's graph is saved small: the same numbers from fewer nodes and variables."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf
import tf_keras
from tensorflow.core.protobuf import saved_model_pb2

from cmt.serving import network_graph
from cmt.serving.network_graph import shrink


class Network(tf.Module):
    """A convolution with a norm, twice, and a loop; constants and means repeat."""

    def __init__(self):
        super().__init__()
        layers = tf_keras.layers
        self.convolutions = [layers.Conv2D(4, 3) for _ in range(2)]
        self.norms = [layers.BatchNormalization() for _ in range(2)]
        self.unused = tf.Variable(1.0)

    @tf.function(
        input_signature=[
            {"images": tf.TensorSpec([None, 9, 9, 3]), "n": tf.TensorSpec([], tf.int32)}
        ],
        autograph=False,
    )
    def __call__(self, inputs):
        images = inputs["images"] / 2
        for convolve, norm in zip(self.convolutions, self.norms, strict=True):
            images = tf.nn.relu(norm(convolve(images) + tf.reduce_mean(images)))
            images += 0 * tf.reduce_mean(images) + tf.reduce_mean(images)
        doubled = tf.while_loop(
            lambda i, _: i < inputs["n"], lambda i, x: (i + 1, 2 * x), (0, images)
        )
        return {"images": doubled[1], "n": inputs["n"]}


@pytest.fixture(scope="module")
def network():
    tf_keras.utils.set_random_seed(0)
    network = Network()
    concrete = network.__call__.get_concrete_function()
    rng = np.random.default_rng(0)
    for variable in network.variables:
        variable.assign(rng.uniform(0.5, 1.5, variable.shape))
    return network, concrete


def request(batch):
    images = np.random.default_rng(batch).uniform(-1, 1, (batch, 9, 9, 3))
    return {"images": tf.constant(images, tf.float32), "n": tf.constant(3)}


def test_same_numbers_from_fewer_nodes_and_variables(network, monkeypatch):
    monkeypatch.setattr(network_graph, "_LARGE", 3 * 3 * 3 * 4)  # a kernel
    network, concrete = network
    small, variables = shrink(concrete, network.variables)
    for batch in (1, 3):
        expected, found = network(request(batch)), small(request(batch))
        assert sorted(found) == sorted(expected)
        assert np.array_equal(found["n"], expected["n"])
        np.testing.assert_allclose(found["images"], expected["images"], rtol=1e-6)
    kernels = [layer.kernel for layer in network.convolutions]
    assert {id(v) for v in variables[:-1]} == {id(v) for v in kernels}
    assert variables[-1].shape == [2 * 5 * 4]
    graph = small.get_concrete_function().graph
    assert len(graph.captures) == 3
    assert len(graph.get_operations()) < len(concrete.graph.get_operations())


def test_the_vectors_are_a_copy(network):
    """Export leaves the network as it is, which may go on training."""
    network, concrete = network
    small, variables = shrink(concrete, network.variables)
    before = network(request(1))["images"]
    variables[-1].assign_add(tf.ones_like(variables[-1]))
    assert np.array_equal(network(request(1))["images"], before)
    assert not np.allclose(small(request(1))["images"], before)


def test_only_the_network_is_optimized_by_a_server(served):
    content = (served / "saved_model.pb").read_bytes()
    (meta,) = saved_model_pb2.SavedModel.FromString(content).meta_graphs
    functions = meta.graph_def.library.function
    optimized = {}
    for nodes in (meta.graph_def.node, *(function.node_def for function in functions)):
        for node in (node for node in nodes if "config_proto" in node.attr):
            config = tf.compat.v1.ConfigProto.FromString(node.attr["config_proto"].s)
            rewriting = config.graph_options.rewrite_options
            if not rewriting.disable_meta_optimizer:
                optimized[node.attr["f"].func.name] = list(rewriting.optimizers)
    ((name, passes),) = optimized.items()
    assert "network" in name and passes == ["remap"]
