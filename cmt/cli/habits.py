"""What other programs' users type, and the line that does it here."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

_CROP = "data.crop_height_pixels data.crop_width_pixels"
_KIND = "trainer.strategy.kind"
_STEPS = "steps are epochs x images / trainer.global_batch_size"
# Names without dashes and dots -> the fields that are meant, and what to know of them.
_MEANT = {
    "b batch batchsize bs": ("trainer.global_batch_size", "over all devices"),
    "lr lr0 learningrate baselr": (
        "trainer.learning_rate.base",
        "for this batch, never scaled",
    ),
    "wd weightdecay": ("trainer.optimizer.weight_decay", ""),
    "optim optimizer": ("trainer.optimizer.kind", ""),
    "strategy": (_KIND, ""),
    "device devices gpu gpus": (_KIND, "CUDA_VISIBLE_DEVICES chooses the GPUs"),
    "epoch epochs": ("trainer.steps", _STEPS),
    "iterations iters maxiter maxsteps": ("trainer.steps", ""),
    "warmup": ("trainer.learning_rate.warmup_steps", ""),
    "imgsz imgsize imagesize cropsize": (_CROP, "a multiple of 16 plus 1"),
    "weights pretrained init": ("trainer.initial_checkpoint", ""),
    "workers numworkers j": ("data.parallel_calls", ""),
    "amp bf16 fp16 half mixedprecision": ("model.precision", ""),
    "resume continue": ("", "the same command continues the run that is in --output"),
}
_FLAGS = ("amp", "bf16", "fp16", "half", "mixedprecision", "resume", "continue")
_CHANGE = re.compile(r"[a-z][\w.-]*=.+", re.I)


class _Meant(NamedTuple):
    """The fields behind a name, none where nothing has to be typed, and a note."""

    fields: list[str]
    note: str


def line_meant(words: Sequence[str], usage: Any) -> str | None:
    """Explains options and changes that `--set` makes here.

    Args:
      words: of the command line, after "cmt".
      usage: the context of a usage error, which knows the command.

    Returns:
      The fields meant and the line to type; None where there is nothing to explain.
    """
    path = usage.command_path.split()[1:]
    options = {o: p for p in usage.command.params for o in p.opts if o[:1] == "-"}
    if "--set" not in options or list(words[: len(path)]) != path:
        return None
    line, before, told = ["cmt", *path], [], []
    for word, value in _pairs(words[len(path) :], options):
        name, equals, _ = word.partition("=")
        is_option = name[:1] == "-" and name not in options
        is_change = name[:1] != "-" and bool(_CHANGE.fullmatch(word))
        meant = _meant(name.strip("-")) if is_option or is_change else None
        if meant is None and not is_change:
            line += [word] if value is None or equals else [word, value]
            continue
        if is_change and (meant is None or meant.fields == [name]):
            # Where there is no such field, the next run explains that.
            line += ["--set", word]
            told.append(f"{name} is set with --set")
            continue
        told.append(_explain(name, meant))
        changes, devices = _changes(meant, name.strip("-"), value)
        line += changes
        before += devices
    return _answer(told, before, line) if told else None


def change_meant(words: Sequence[str], error: Exception) -> str | None:
    """Explains a `--set` of a field that does not exist, where a habit stands for one.

    Args:
      words: of the command line, after "cmt".
      error: what ended the command.

    Returns:
      As `line_meant`.
    """
    from cmt import textproto

    if not isinstance(error, textproto.UnknownField):
        return None
    change = error.assignment
    name, _, value = (part.strip() for part in change.partition("="))
    fields = {path.rpartition(".")[2] for path in _leaves()}
    # A field of this name in another place is what the error names itself.
    meant = None if name.rpartition(".")[2] in fields else _meant(name)
    if meant is None:
        return None
    changes, devices = _changes(meant, name.rpartition(".")[2], value)
    line = ["cmt"]
    for word in words:
        if word == change and line[-1] == "--set":
            line[-1:] = changes
        else:
            line += changes if word == f"--set={change}" else [word]
    return _answer([_explain(name, meant)], devices, line)


def _changes(
    meant: _Meant, name: str, value: str | None
) -> tuple[list[str], list[str]]:
    """The options that make a change, and what to set in the environment."""
    changes, before = [], []
    for field in meant.fields:
        text, devices = _value(field, name, value)
        changes += ["--set", f"{field}={text}"]
        before += devices
    return changes, before


def _answer(told: Sequence[str], before: Sequence[str], line: Sequence[str]) -> str:
    return f"{'; '.join(told)}; type: {' '.join([*before, shlex.join(line)])}"


def _pairs(
    words: Sequence[str], options: dict[str, Any]
) -> Iterator[tuple[str, str | None]]:
    """Yields each word, with the value that belongs to it."""
    waiting = list(words)
    while waiting:
        word = waiting.pop(0)
        name, equals, value = word.partition("=")
        is_flag = _short(name) in _FLAGS or getattr(options.get(name), "is_flag", False)
        takes = name[:1] == "-" and not is_flag
        if equals:
            yield word, value
        elif takes and waiting and waiting[0][:1] != "-":
            yield word, waiting.pop(0)
        else:
            yield word, None


def _meant(name: str) -> _Meant | None:
    """The fields that a name stands for: a habit, a field, or the end of one's path."""
    path = name.replace("-", "_")
    ends = [p for p in _leaves() if f".{p}".endswith(f".{path}")]
    if path in ends:
        return _Meant([path], "")
    short = _short(path.rpartition(".")[2])
    for names, (fields, note) in _MEANT.items():
        if short in names.split():
            return _Meant(fields.split(), note)
    return _Meant(ends, "") if len(ends) == 1 else None


def _short(name: str) -> str:
    return re.sub(r"[-_.]", "", name).lower()


def _leaves() -> dict[str, Any]:
    from cmt import textproto
    from cmt.protos import experiment_pb2

    return dict(textproto.leaf_paths(experiment_pb2.ExperimentConfig.DESCRIPTOR))


def _explain(name: str, meant: _Meant) -> str:
    if not meant.fields:
        return f"there is no {name}: {meant.note}"
    note = f" ({meant.note})" if meant.note else ""
    return f"{name} means {' and '.join(meant.fields)}{note}"


def _value(field: str, name: str, value: str | None) -> tuple[str, list[str]]:
    """The value of a field, and what to set in the environment; "..." if unknown."""
    from cmt import textproto

    leaf, devices = _leaves()[field], []
    if name.startswith("epoch"):
        value = None
    elif field == _KIND and value is not None:
        value, devices = _strategy(name, value)
    elif field == "model.precision" and name != "precision":
        value = "MIXED_BFLOAT16"
    elif field in _CROP.split() and value is not None and value.isdecimal():
        value = str(16 * round((int(value) - 1) / 16) + 1)
    elif value is not None and leaf.enum_type is not None:
        value = value.upper()
    try:
        if leaf.cpp_type != textproto.Field.CPPTYPE_STRING:
            textproto.parse_value(leaf, value or "")
    except ValueError:
        value = None
    return value or "...", devices


def _strategy(name: str, value: str) -> tuple[str, list[str]]:
    """The strategy for devices such as cpu, cuda:0, 0,1 or, of --gpus, a number."""
    text = value.lower()
    numbers = re.findall(r"\d+", text)
    if text == "cpu" or text == "-1":
        return "ONE_DEVICE", ["CUDA_VISIBLE_DEVICES=-1"]
    if name == "gpus" and text.isdecimal():
        return "MIRRORED" if int(text) > 1 else "ONE_DEVICE", []
    if numbers:
        kind = "MIRRORED" if len(numbers) > 1 else "ONE_DEVICE"
        return kind, [f"CUDA_VISIBLE_DEVICES={','.join(numbers)}"]
    return "ONE_DEVICE" if text in ("gpu", "cuda") else value.upper(), []
