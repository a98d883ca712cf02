"""Finds, reads, checks and prints experiment configs.

Defaults and the rules of single values stand in `protos/*.proto`; what two values
must have to do with each other stands here, in `check`.
"""

from __future__ import annotations

import difflib
import importlib.resources
import itertools
import math
import pathlib
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from google.protobuf import message as message_lib

from cmt import textproto
from cmt.errors import InputError
from cmt.protos import experiment_pb2, model_pb2, options_pb2, trainer_pb2
from cmt.textproto import diff, to_text

__all__ = [
    "available_configs",
    "check",
    "diff",
    "load_experiment",
    "parse_experiment",
    "read_header",
    "read_model_config",
    "to_text",
]

_ENDING = ".textproto"
_NEAREST = 3


def available_configs() -> list[str]:
    """Returns the names of the configs in the package, such as "scenes/tiny"."""
    return sorted(_walk(importlib.resources.files("cmt.configs"), ""))


def read_header(name_or_path: str | pathlib.Path) -> dict[str, str]:
    """Reads the comment that a config opens with.

    Returns:
      Its first paragraph as "Title"; then what stands after each first word, such as
      "Expected" or "Size", all without line breaks.

    Raises:
      InputError: no such config.
    """
    text, _ = _read(name_or_path)
    lines = itertools.takewhile(lambda line: line.startswith("#"), text.splitlines())
    entries: dict[str, str] = {}
    label = "Title"
    for line in lines:
        if found := re.match(r"# ([A-Z]\w+): +(.*)", line):
            label, line = found.groups()
        so_far = entries.get(label, "")
        space = "" if so_far.endswith("-") else " "  # "follow-" and "up" on two lines.
        entries[label] = f"{so_far}{space}{line.lstrip('# ')}".strip()
    return entries


def _walk(folder: Any, prefix: str) -> Iterator[str]:
    for entry in folder.iterdir():
        if entry.is_dir():
            yield from _walk(entry, f"{prefix}{entry.name}/")
        elif entry.name.endswith(_ENDING):
            yield prefix + entry.name.removesuffix(_ENDING)


def _read(name_or_path: str | pathlib.Path) -> tuple[str, str]:
    """Returns (text, source) of a file, or of a config of the package."""
    if not str(name_or_path):
        raise InputError(
            "the name of a config is empty; give a textproto file or a config of the"
            " package, such as 'scenes/tiny'"
        )
    path = pathlib.Path(name_or_path)
    name = str(name_or_path).removesuffix(_ENDING)
    if path.is_file():
        try:
            return path.read_text(encoding="utf-8"), str(path)
        except UnicodeDecodeError as error:
            raise InputError(
                f"{path}: a config is UTF-8 text; byte {error.start} is not"
            ) from error
    if name in (names := available_configs()):
        resource = importlib.resources.files("cmt.configs").joinpath(name + _ENDING)
        return resource.read_text(encoding="utf-8"), name + _ENDING
    if path.is_dir():
        raise InputError(
            f"{path} is a folder; a config is a file, such as"
            f" {path / 'config.textproto'}"
        )
    if "=" in name:
        raise InputError(
            f"'{name_or_path}' changes a field and is no config; give the config first:"
            f" CONFIG --set {name_or_path}"
        )
    raise InputError(
        f"no config '{name_or_path}': neither a file nor one of the package;"
        f" {_nearest(name, names)} cmt.list_models() names all {len(names)}"
    )


def _nearest(name: str, names: Sequence[str]) -> str:
    """What a user may have meant, or else the names that are least unlike.

    Ends so that another clause may follow.
    """
    close = difflib.get_close_matches(name, names, n=_NEAREST)
    if close:
        return f"did you mean {' or '.join(map(repr, close))}?"
    unlike = difflib.get_close_matches(name, names, n=_NEAREST, cutoff=0)
    return f"the nearest are {', '.join(map(repr, unlike))};"


def load_experiment(
    name_or_path: str | pathlib.Path, overrides: Sequence[str] = ()
) -> experiment_pb2.ExperimentConfig:
    """Reads and checks a config.

    Args:
      name_or_path: a textproto file, or the bare name of a config of the package
        such as "scenes/tiny". A file of that path goes first.
      overrides: "path=value" each, applied in this order.

    Returns:
      The config, resolved: every field that has a default is set.

    Raises:
      InputError: no such config, or something in it is wrong; names file, line and
        column, or the override.
    """
    text, source = _read(name_or_path)
    return parse_experiment(text, source, overrides)


def parse_experiment(
    text: str, source: str, overrides: Sequence[str] = ()
) -> experiment_pb2.ExperimentConfig:
    """`load_experiment` for a text in memory.

    Args:
      text: a textproto of ExperimentConfig.
      source: path of its file, for messages; its stem is the default of `name`.
      overrides: "path=value" each.

    Returns:
      The config, checked and resolved.

    Raises:
      InputError: see `load_experiment`.
    """
    experiment = experiment_pb2.ExperimentConfig()
    origins = textproto.parse(text, experiment, source)
    for override in overrides:
        origins[textproto.assign(experiment, override)] = f"--set {override}"
    if not experiment.name:
        experiment.name = pathlib.PurePath(source).stem
    textproto.resolve(experiment)
    check(experiment, origins=origins)
    return experiment


def read_model_config(
    config: str | pathlib.Path | model_pb2.ModelConfig,
) -> model_pb2.ModelConfig:
    """Returns the checked ModelConfig of a config's name, its path or a message.

    Raises:
      InputError: no such config, or something in it is wrong.
    """
    if isinstance(config, str | pathlib.Path):
        return load_experiment(config).model
    if isinstance(config, experiment_pb2.ExperimentConfig):
        config = config.model
    if not isinstance(config, model_pb2.ModelConfig):
        raise InputError(
            "a model is built from the name of a config, the path of one or a"
            f" ModelConfig message; got {type(config).__name__}"
        )
    experiment = experiment_pb2.ExperimentConfig(model=config)
    _check_rules(experiment, {})
    _check_model(_View(experiment, {}))
    return experiment.model


def check(
    experiment: experiment_pb2.ExperimentConfig,
    num_replicas: int | None = None,
    *,
    origins: Mapping[str, str] | None = None,
) -> None:
    """Checks each value, then values against each other, before any work.

    Args:
      experiment: a config, resolved or not.
      num_replicas: devices that share a batch, where known.
      origins: where fields were set, by path; messages then name the place.

    Raises:
      InputError: names the fields, their values, the rule and the fix.
    """
    view = _View(experiment, origins or {})
    _check_rules(experiment, view.origins)
    _check_model(view)
    _check_data(view)
    _check_trainer(view, num_replicas)


def _check_rules(message: message_lib.Message, origins: Mapping[str, str]) -> None:
    """Checks every leaf against the rule of its field in the .proto file."""
    for path, field, value in textproto.leaves(message):
        broken = value is not None and _broken_rule(field, value)
        if broken:
            where = f"{origins[path]}: " if path in origins else ""
            got = textproto.value_text(field, value)
            raise InputError(f"{where}{path} must be {broken}; got {got}")


def _broken_rule(field: textproto.Field, value: Any) -> str:
    """Returns the rule that a value breaks, or an empty string."""
    if field.cpp_type == textproto.Field.CPPTYPE_ENUM:
        names = textproto.enum_names(field)
        name = field.enum_type.values_by_number[value].name
        return "" if name in names else f"one of {', '.join(names)}"
    if isinstance(value, str | bool):
        return ""
    if not math.isfinite(value):
        return "finite"
    rule = field.GetOptions().Extensions[options_pb2.rule]
    # As the user wrote it: 0.99 in 32 bits is above the 0.99 of the rule in 64.
    value = float(textproto.value_text(field, value))
    low, high = rule.min, rule.max
    if rule.HasField("min") and rule.above_min and value <= low:
        return f"above {low:g}"
    if rule.HasField("min") and value < low:
        return f"at least {low:g}"
    if rule.HasField("max") and value > high:
        return f"at most {high:g}"
    step, remainder = rule.multiple_of, rule.remainder
    if step and (value - remainder) % step:
        below = int(value - remainder) // step * step + remainder
        plus = f" plus {remainder}" if remainder else ""
        return f"a multiple of {step}{plus}, such as {below} or {below + step}"
    return ""


class _View:
    """Values of a config by path, and how to speak of them."""

    def __init__(self, message: message_lib.Message, origins: Mapping[str, str]):
        self._leaves = {p: (f, v) for p, f, v in textproto.leaves(message)}
        self.origins = origins

    def __getitem__(self, path: str) -> Any:
        return self._leaves[path][1]

    def describe(self, path: str) -> str:
        """Returns "path = value", with the place where it was set."""
        field, value = self._leaves[path]
        if value is None:
            return f"{path} is not set"
        text = textproto.value_text(field, value)
        where = self.origins.get(path, "default" if self.origins else "")
        return f"{path} = {text}" + (f" ({where})" if where else "")

    def require(
        self, a: str, b: str, holds: Callable[[Any, Any], bool], rule: str, fix: str
    ) -> None:
        """Raises InputError unless `holds(value of a, value of b)`."""
        if not holds(self[a], self[b]):
            raise InputError(f"{self.describe(a)} {rule} {self.describe(b)}; {fix}")


def _divides(a: int, b: int) -> bool:
    return a % b == 0


def _check_model(view: _View) -> None:
    for width, heads in (
        ("backbone.stage4_channels", "backbone.num_heads"),
        ("backbone.stage5_channels", "backbone.num_heads"),
        ("transformer.key_channels", "transformer.num_heads"),
        ("transformer.value_channels", "transformer.num_heads"),
    ):
        view.require(
            f"model.{width}",
            f"model.{heads}",
            _divides,
            "must be divisible by",
            "change one of them",
        )


def _check_data(view: _View) -> None:
    view.require(
        "data.max_masks",
        "model.num_centers",
        lambda masks, centers: masks <= centers,
        "must be at most",
        "each mask needs a center of its own: lower the first or raise the second",
    )
    for scaled in ("data.augmentation", "data.augmentation.copy_paste"):
        view.require(
            f"{scaled}.min_scale",
            f"{scaled}.max_scale",
            lambda low, high: low <= high,
            "must be at most",
            "swap them",
        )
    for kept in ("service", "snapshot_folder"):
        view.require(
            "data.cache_records",
            f"data.{kept}",
            lambda cached, other: not cached or not other,
            "cannot be used with",
            "set the first to false, or leave the second out",
        )


def _check_trainer(view: _View, num_replicas: int | None) -> None:
    view.require(
        "trainer.learning_rate.warmup_steps",
        "trainer.steps",
        lambda warmup, steps: warmup < steps,
        "must be below",
        "shorten the warm-up or train longer",
    )
    view.require(
        "trainer.evaluate_every_steps",
        "data.validation.tfrecords",
        lambda steps, tfrecords: steps == 0 or tfrecords,
        "needs validation data, but",
        "set the second, or the first to 0",
    )
    view.require(
        "trainer.optimizer.weight_decay",
        "trainer.optimizer.kind",
        lambda decay, kind: decay == 0 or kind != trainer_pb2.ADAM,
        "is not read with",
        "set the first to 0, or the second to ADAMW",
    )
    batch, parts = "trainer.global_batch_size", "trainer.accumulation_steps"
    divisor = (num_replicas or 1) * view[parts]
    if view[batch] % divisor:
        below = max(1, view[batch] // divisor) * divisor
        rule = f"the number of replicas, {num_replicas}"
        if view[parts] > 1:
            rule = f"{view.describe(parts)}"
            rule += f" times {num_replicas} replicas" if num_replicas else ""
        raise InputError(
            f"{view.describe(batch)} must be divisible by {rule}; use {below} or"
            f" {below + divisor}"
        )
