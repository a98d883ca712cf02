"""What users give where `cmt predict` wants a model or images."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

from cmt.config import available_configs
from cmt.run_files import CHECKPOINTS_FOLDER, CONFIG_FILE
from cmt.serving.saved_model import find_saved_model


class Mistaken(NamedTuple):
    """What a path or word is.

    Attributes:
      what: in a few words, such as "a config".
      model: what to give instead where a model is wanted.
    """

    what: str
    model: str


def recognize(text: str | Path) -> Mistaken | None:
    """Recognizes what may be given by mistake; None for anything else.

    Args:
      text: a path or word, such as the name of a config or a URL.
    """
    text = str(text)
    path = Path(text)
    if re.match(r"\w+:/", text):  # A Path has but one of the two slashes.
        copy = "copy what it names to this machine and give its path"
        return Mistaken("a URL", copy)
    if path.suffix == ".textproto" or text in available_configs():
        if path.name == CONFIG_FILE and (path.parent / CHECKPOINTS_FOLDER).is_dir():
            return Mistaken("the config of a run", f"give the run, {path.parent}")
        train = f"cmt train {text} --output runs/NAME"
        how = f"train it, `{train}`, and give runs/NAME"
        return Mistaken("a config, which has no weights", how)
    if (checkpoint := _checkpoint(path)) is not None:
        return checkpoint
    if path.name == "saved_model.pb":
        return Mistaken("a file of a SavedModel", f"give its folder, {path.parent}")
    if path.suffix in (".keras", ".h5", ".hdf5"):
        how = "load it with tf_keras, or export a checkpoint with `cmt export`"
        return Mistaken("a file of Keras", how)
    if path.is_file():
        return Mistaken("a file", "give the model first and the images after it")
    if (path / CONFIG_FILE).is_file() or find_saved_model(path) is not None:
        return Mistaken("a model", "give it before the images")
    return None


def _checkpoint(path: Path) -> Mistaken | None:
    """Recognizes the prefix of a checkpoint, one of its files, or their folder."""
    prefix = re.sub(r"\.(index|data-\d+-of-\d+)$", "", str(path))
    if Path(f"{prefix}.index").is_file():
        what, run, given = "a checkpoint", path.parent.parent, prefix
    elif any(path.glob("*.index") if path.is_dir() else ()):
        what, run, given = "a folder of checkpoints", path.parent, str(path)
    else:
        return None
    if (run / CONFIG_FILE).is_file():
        latest = f"give its run, {run}, for the latest checkpoint, or export this one"
        config = str(run / CONFIG_FILE)
    else:
        latest, config = "export it", "CONFIG"
    export = f"cmt export {config} --checkpoint {given} --output models/NAME"
    return Mistaken(what, f"{latest}, `{export}`, and give models/NAME")
