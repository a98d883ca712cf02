"""`cmt explain`: how the layers of a network cluster the pixels of an image."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from math import isnan
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cmt.cli.paths import local_path
from cmt.cli.predict import Checkpoint, Inputs, report_unreadable

if TYPE_CHECKING:
    import numpy as np

    from cmt.outputs import Predictions
    from cmt.serving.predict import Outcome
    from cmt.serving.predictor import PanopticPredictor

EXPLANATION_FILE = "explanation.json"


def explain_images(
    model: Annotated[
        Path,
        typer.Argument(
            parser=local_path,
            metavar="MODEL",
            help="A run directory of `cmt train` (its latest checkpoint is taken). "
            "With --checkpoint, a config.",
        ),
    ],
    inputs: Inputs,
    output: Annotated[
        Path,
        typer.Option(
            parser=local_path,
            metavar="DIR",
            help="Gets a picture of each image and explanation.json.",
        ),
    ],
    checkpoint: Checkpoint = None,
) -> None:
    """Draw how each layer clusters the pixels, and what its centers attend to.

    A picture for each image: the assignment of every layer, a colour a center; below it
    the attention of the center of the largest thing and that center's assignment; the
    reference points over the final masks. The table has, layer by layer, over how many
    pixels the attention spreads, the mean over all confident centers, and how much of
    it lies on the center's final mask.

    \b
    Examples:
      cmt explain runs/tiny holiday.jpg --output explained
      cmt explain coco/max_deeplab_s_relu_641 photos/ --output explained \\
        --checkpoint max_deeplab_s/ckpt-100000
    """
    from cmt.evaluation.attention import attention_density
    from cmt.io.files import write_json
    from cmt.serving.factory import open_network
    from cmt.serving.inputs import find_inputs
    from cmt.serving.predict import Outcome

    files = find_inputs(inputs)
    experiment, predictor = open_network(model, checkpoint)
    outcome = Outcome([], [])
    confidence = experiment.evaluation.thing_confidence
    density = attention_density(
        _draw_all(predictor, files, output, outcome, confidence)
    )
    known = [{k: None if isnan(v) else v for k, v in row.items()} for row in density]
    path = output / EXPLANATION_FILE
    write_json(path, {**outcome.to_json(), "attention_density": known})
    _print_density(known)
    print(f"pictures  {output}, the numbers in {path}")
    report_unreadable(outcome)


def _draw_all(
    predictor: PanopticPredictor,
    files: Sequence[Path],
    output: Path,
    outcome: Outcome,
    confidence: float,
) -> Iterator[tuple[Predictions, np.ndarray]]:
    """Draws image after image; yields predictions and which centers are confident.

    Raises:
      InputError: no file is an image.
    """
    from cmt.errors import InputError
    from cmt.evaluation.attention import confident_centers
    from cmt.evaluation.pictures import explanation_sheet, make_row
    from cmt.io.progress import track
    from cmt.pictures.sheet import save_picture
    from cmt.serving.predict import output_names, read_image

    names = zip(files, output_names(files), strict=True)
    for file, name in track(names, description="explaining", total=len(files)):
        image = read_image(file)
        if isinstance(image, str):
            outcome.unreadable.append((file, image))
            continue
        inputs = predictor.prepare(image[None])
        predictions = predictor.network(inputs["crops"], training=False)
        row = make_row(
            image,
            ground_truth=None,
            panoptic=predictor.predict(image[None])["panoptic"][0].numpy(),
            categories=predictor.categories,
            predictions=predictions,
            confidence=confidence,
            size=inputs["resized_sizes"][0].numpy(),
            crop_size=predictor.crop_size,
        )
        picture = f"{name}.png"
        save_picture(output / picture, explanation_sheet(row))
        outcome.images.append({"file": str(file), "picture": picture})
        yield predictions, confident_centers(predictions.class_logits, confidence)
    if not outcome.images:
        file, reason = outcome.unreadable[0]
        raise InputError(f"none of {len(files)} files is an image; {file}: {reason}")


def _print_density(layers: Sequence[Mapping[str, float | None]]) -> None:
    """A line a layer: pixels that are attended to, and the share on the mask."""
    from cmt.io.terminal import NUMBER, TEXT, print_table

    def shown(value: float | None, scale: float, digits: int) -> str:
        return "none" if value is None else f"{value * scale:.{digits}f}"

    rows = [
        (
            str(number),
            shown(layer.get("attention"), 1, 1),
            shown(layer.get("attention_on_mask"), 100, 0),
            shown(layer["update"], 1, 1),
            shown(layer["update_on_mask"], 100, 0),
            str(layer["pixels"]),
            str(layer["centers"]),
        )
        for number, layer in enumerate(layers, start=1)
    ]
    columns = ("attention, px", "% on mask", "with Z, px", "% on mask, with Z")
    numbers = dict.fromkeys((*columns, "of px", "centers"), NUMBER)
    print_table({"layer": TEXT, **numbers}, rows)
