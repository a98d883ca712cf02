"""No dead fields: each leaf of a config, changed, changes what some factory makes."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import types
from collections.abc import Iterator
from typing import Any

import pytest

from cmt import config, factory, textproto
from cmt.data.input import open as data_factory
from cmt.data.panoptic.categories import Category
from cmt.evaluation import factory as evaluation_factory
from cmt.protos import experiment_pb2, options_pb2
from cmt.serving import export as serving_export
from cmt.serving import factory as serving_factory
from cmt.trainer import factory as trainer_factory

LEAVES = dict(textproto.leaf_paths(experiment_pb2.ExperimentConfig.DESCRIPTOR))
# Each field has to matter in one of these.
BASES = {
    "stronger": (),
    "basic": ("model.decoder.stronger=false",),
    "scales": ("evaluation.min_scale=0.5", "evaluation.max_scale=1.5"),
}
# What a factory makes is recorded by these stand-ins instead of being made.
STAND_INS = {
    factory: (
        "AxialBlock",
        "Backbone",
        "BottleneckBlock",
        "CMTDeepLab",
        "Decoder",
        "DualPath",
        "Fuse",
        "PanopticHead",
        "PanopticLoss",
        "RecursiveCMTDeepLab",
        "SemanticBranch",
        "TransformerLayer",
    ),
    trainer_factory: ("LearningRate", "Trainer"),
    trainer_factory.optimizer: ("build_optimizer",),
    trainer_factory.strategy: ("build_strategy",),
    evaluation_factory: ("evaluate", "read_ground_truth", "read_test_set"),
    serving_factory: ("PanopticPredictor", "read_categories"),
    serving_export: ("export_model",),
}


class Made:
    """Stands for what a call returned: prints as the call, has any attribute."""

    def __init__(self, text: str):
        self._text = text

    def __repr__(self) -> str:
        return self._text

    def __getattr__(self, name: str) -> Made:
        if name.startswith("__"):
            raise AttributeError(name)
        return Made(f"{self._text}.{name}")

    def __iter__(self) -> Iterator[Any]:
        return iter(())

    def __call__(self, *arguments: Any, **keywords: Any) -> Made:
        # The whole config travels to the SavedModel; that alone is not use.
        keywords.pop("config_text", None)
        parts = [repr(a) for a in arguments]
        parts += [f"{name}={value!r}" for name, value in keywords.items()]
        return Made(f"{self._text}({', '.join(parts)})")


@dataclasses.dataclass
class Manifest:
    """What the factories ask of a manifest."""

    files: str
    categories: list[Category]
    split: str = "val"
    num_images: int = 10_000
    annotations: str = "a.json"
    masks: str = "masks"


@dataclasses.dataclass
class Split:
    """What the factories ask of a split."""

    manifest: Manifest
    categories: list[Category]
    evaluation_batches: Made
    num_images: int = 10_000

    def examples(self, _: int) -> list[Any]:
        return []


@pytest.fixture
def outputs(monkeypatch):
    """Returns experiment -> text of all that the factories make of it."""
    for module, names in STAND_INS.items():
        for name in names:
            assert hasattr(module, name)
            monkeypatch.setattr(module, name, Made(name))
    return functools.partial(_outputs, monkeypatch)


def _outputs(monkeypatch, experiment: experiment_pb2.ExperimentConfig) -> str:
    classes = experiment.model.num_classes
    categories = [Category(i + 1, f"c{i}", True, (0, 0, 0)) for i in range(classes)]

    def find_split(*arguments: Any) -> Split:
        text = repr(arguments)
        return Split(
            manifest=Manifest(text, categories),
            categories=categories,
            evaluation_batches=Made(f"evaluation batches of {text}"),
        )

    policies = []

    def policy_scope(policy: str | None) -> contextlib.nullcontext:
        policies.append(policy)
        return contextlib.nullcontext()

    monkeypatch.setattr(factory, "policy_scope", policy_scope)
    predictor = types.SimpleNamespace(categories=categories, crop_size=(33, 33))
    monkeypatch.setattr(data_factory, "find_split", find_split)
    monkeypatch.setattr(evaluation_factory.storage, "is_folder", lambda _: True)
    monkeypatch.setattr(serving_factory, "load_predictor", lambda *_: (predictor, 7))
    data = data_factory.Data(experiment.data)
    evaluation = evaluation_factory.open_evaluation(
        experiment, data.validation, categories
    )
    made = (
        factory.build_model(experiment.model),
        factory.build_loss(experiment.model, experiment.loss),
        factory.merge_options(experiment.evaluation),
        data.train,
        data.validation,
        trainer_factory.read_settings(experiment),
        trainer_factory.build_strategy(experiment.trainer.strategy),
        trainer_factory.build_schedule(experiment.trainer),
        trainer_factory.build_trainer(
            experiment, trainer_factory.build_network(experiment), categories
        ),
        serving_factory.build_predictor(experiment, Made("network"), categories),
        evaluation.run(predictor, "out", step=1),
        evaluation_factory.open_test_set(experiment),
        serving_factory.export_checkpoint(experiment, "checkpoint", "out"),
        serving_factory.find_categories(experiment, data, "checkpoint"),
        policies,
    )
    return repr(made)


def _experiment(base: str) -> experiment_pb2.ExperimentConfig:
    given = ("data.train.tfrecords=t-*", "data.validation.tfrecords=v-*")
    given += ("data.test.images=i", "data.test.list=l", "data.categories=c")
    return config.parse_experiment("", "base.textproto", (*given, *BASES[base]))


def _another(field: textproto.Field, value: Any) -> Any:
    """Returns another valid value of a leaf."""
    kind = field.cpp_type
    if kind == textproto.Field.CPPTYPE_STRING:
        return "changed"
    if kind == textproto.Field.CPPTYPE_BOOL:
        return not value
    if kind == textproto.Field.CPPTYPE_ENUM:
        numbers = [n for n in field.enum_type.values_by_number if n not in (0, value)]
        return numbers[0]
    rule = field.GetOptions().Extensions[options_pb2.rule]
    if rule.multiple_of:
        return value + rule.multiple_of
    if kind == textproto.Field.CPPTYPE_FLOAT:
        return value / 2 if value else 0.5
    doubled = 2 * value if value else 1
    return value // 2 if rule.HasField("max") and doubled > rule.max else doubled


@pytest.mark.parametrize("path", LEAVES)
def test_a_changed_field_changes_what_some_factory_makes(path, outputs):
    for base in BASES:
        experiment = _experiment(base)
        before = outputs(experiment)
        *parents, name = path.split(".")
        owner = functools.reduce(getattr, parents, experiment)
        value = _another(LEAVES[path], getattr(owner, name))
        assert value != getattr(owner, name)
        setattr(owner, name, value)
        if outputs(experiment) != before:
            return
    pytest.fail(f"no factory reads {path}")


def test_the_same_config_makes_the_same(outputs):
    texts = {outputs(_experiment("stronger")) for _ in range(2)}
    assert len(texts) == 1
    text = texts.pop()
    assert " at 0x" not in text, text[text.find(" at 0x") - 80 :][:120]
