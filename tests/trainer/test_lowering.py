"""The whole training step is for a TPU, and the check finds what is not."""

from __future__ import annotations

import re

import pytest
import tensorflow as tf
import tf_keras
from google.protobuf import text_format

from cmt.config import available_configs, load_experiment
from cmt.errors import WorkError
from cmt.outputs import Targets
from cmt.trainer.trainer import Trainer
from tests.optimizers import RADAM_LOOKAHEAD
from tests.test_model import MINIATURE
from tools.lowering import find_in_hlo, lower, lower_config

BATCH = 2


def specs(size: int, num_masks: int) -> tuple[tf.TensorSpec, Targets]:
    pixels = tf.TensorSpec([BATCH, size, size], tf.int32)
    return tf.TensorSpec([BATCH, size, size, 3], tf.float32), Targets(
        pixels,
        pixels,
        tf.TensorSpec([BATCH, num_masks], tf.int32),
        tf.TensorSpec([BATCH], tf.int32),
    )


# Depth alone: what a layer is stays as the config has it.
SMALL = (
    *(f"model.backbone.stage{stage}_blocks=1" for stage in (2, 3, 4, 5)),
    *(f"model.decoder.{name}=1" for name in ("stage5_layers", "stage4_layers")),
    *(f"data.crop_{side}_pixels=65" for side in ("height", "width")),
    "data.max_masks=8",
    "trainer.accumulation_steps=1",
)


def check_step(text: str) -> None:
    """The guard and the loop of the matching are in it."""
    assert 'op_type="IsFinite"' in text
    assert " while(" in text


@pytest.mark.check
def test_step_of_a_miniature():
    experiment = load_experiment(
        "scenes/tiny",
        ("data.crop_height_pixels=33", "data.crop_width_pixels=33", "data.max_masks=4"),
    )
    experiment.model.Clear()
    text_format.Parse(MINIATURE, experiment.model)
    text = lower_config(experiment, batch=BATCH).text
    check_step(text)
    for part in ("ResourceApplyAdam", "MulNoNan", "StatelessRandomUniformV2"):
        assert f'op_type="{part}"' in text, part
    # A TPU makes them element after element.
    assert not re.search(r" gather\(.*cmt_deeplab", text)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["ADAM", "ADAMW", RADAM_LOOKAHEAD])
def test_step_of_the_tiny_config(kind):
    experiment = load_experiment("scenes/tiny", (f"trainer.optimizer.kind={kind}",))
    check_step(lower_config(experiment, batch=BATCH).text)


_seen: dict[str, str] = {}


@pytest.mark.slow
@pytest.mark.parametrize("name", available_configs())
def test_step_of_each_config(name):
    """Of those that differ in size and length alone, the first."""
    experiment = load_experiment(name, SMALL)
    parts = (experiment.model, experiment.loss, experiment.trainer.optimizer)
    first = _seen.setdefault(str(parts), name)
    if first != name:
        pytest.skip(f"small, it is {first}")
    check_step(lower_config(experiment, batch=1).text)


class Network(tf_keras.Model):
    def __init__(self):
        super().__init__()
        self.backbone = tf_keras.layers.Dense(2)
        self.other_variables = []

    def call(self, images, training=False):
        return self.backbone(images)

    @property
    def backbone_variables(self):
        return self.backbone.trainable_variables


class Objective:
    """The mean of what `harm` makes of pixels."""

    def __init__(self, harm):
        self.harm = harm

    def terms(self, targets, predictions):
        value = tf.reduce_mean(tf.cast(self.harm(predictions), tf.float32))
        return {"mean": tf.fill([BATCH], value)}

    def total(self, terms):
        return terms["mean"]


HARMS = {
    "PyFunc": lambda x: tf.numpy_function(lambda y: y, [x], tf.float32),
    "Where": lambda x: tf.boolean_mask(x, x > 0.0),
    "Unique": lambda x: tf.unique(tf.reshape(tf.cast(x, tf.int32), [-1])).y,
    "StringFormat": lambda x: tf.strings.length(tf.strings.format("{}", x)),
    "PrintV2": lambda x: [tf.print(x), x][1],
    "is float64": lambda x: tf.exp(tf.cast(x, tf.float64)),
    "cannot be compiled": lambda x: (
        tf.raw_ops.Betainc(a=x, b=x, x=x)
        + tf.raw_ops.NthElement(input=x, n=1)[..., tf.newaxis]
    ),
}


@pytest.mark.parametrize("expected", HARMS)
def test_refuses(expected):
    network = Network()
    network.build((None, 5, 5, 3))
    rates = [tf_keras.optimizers.legacy.SGD(0.1) for _ in range(2)]
    trainer = Trainer(
        network,
        Objective(HARMS[expected]),
        optimizer=rates[0],
        backbone_optimizer=rates[1],
        global_batch_size=BATCH,
    )
    with pytest.raises(WorkError, match=expected) as error:
        lower(trainer, *specs(5, 4))
    assert "\n" not in str(error.value)


def test_shapes_must_be_known(tiny):
    images, targets = specs(5, 4)
    with pytest.raises(ValueError, match="shapes must be known"):
        lower(tiny.build(), tf.TensorSpec([None, 5, 5, 3]), targets)


def test_reads_hlo():
    lines = (
        '%a = f32[<=4,3]{1,0} slice(%x), metadata={op_type="Slice" op_name="m/cut"}',
        "%b = (f32[2]{0}, f64[]) tuple(%x, %y)",
        "%c = token[] outfeed(%x, %t)",
        '%d = f32[] custom-call(%x), custom_call_target="xla_python_cpu_callback"',
        '%e = f32[4]{0} custom-call(%x), custom_call_target="TopK"',
        "%f = f32[4]{0} convert(f64[4]{0} %x)",
        "%constant.6 = f64[] constant(0.5)",
        "%g = s64[3]{0} add(%x, %y)",
    )
    found = find_in_hlo("\n".join(lines))
    assert [finding.rule for finding in found] == [
        "has a shape that depends on values",
        "is float64 or complex128",
        "calls the host",
        "calls 'xla_python_cpu_callback', which is not XLA's own",
    ]
    assert found[0][:2] == ("Slice", "m/cut")
