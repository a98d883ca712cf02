"""`cmt score`: the scores of COCO panoptic files."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from cmt.cli.options import Things, things_named


def score(
    gt: Annotated[str, typer.Option(help="Ground truth, a COCO panoptic json.")],
    gt_masks: Annotated[str, typer.Option(help="Folder of its PNGs.")],
    pred: Annotated[str, typer.Option(help="Prediction, a COCO panoptic json.")],
    pred_masks: Annotated[str, typer.Option(help="Folder of its PNGs.")],
    as_json: Annotated[
        bool, typer.Option("--json", help="Print json instead of a table.")
    ] = False,
    per_image: Annotated[
        str | None,
        typer.Option(
            metavar="CSV",
            help="Write PQ, SQ, RQ and counts of each image and of each class in it.",
        ),
    ] = None,
    things: Things = None,
    workers: Annotated[
        int, typer.Option(min=0, help="Processes; 0: one a core, for many images.")
    ] = 0,
) -> None:
    """Scores any COCO panoptic prediction files: PQ, mask AP and mIoU, in percent.

    PQ, SQ and RQ are those of the official evaluation, with 95% intervals of PQ by
    bootstrap over images; notes say where a json is not what its PNGs are, and what
    the scores are with areas of the pixels. Mask AP, of the things, needs a "score" in
    each predicted segment, which `cmt eval` and `cmt predict` write. A table, or with
    --json only json on standard output. Paths may be local or what TensorFlow reads,
    such as gs://.

    \b
    Example:
      cmt score --gt panoptic_val2017.json --gt-masks panoptic_val2017 \\
        --pred predictions/panoptic.json --pred-masks predictions/panoptic
    """
    from cmt.evaluation.score import score_files

    options = {"workers": workers, "per_image": per_image}
    if things is not None:
        options["things"] = things_named(things)
    result = score_files(gt, gt_masks, pred, pred_masks, **options)
    if as_json:
        import json

        print(json.dumps(result, indent=2))
    else:
        print_tables(result)


def print_tables(result: dict[str, Any]) -> None:
    """Prints the scores of `score_files`: all, things and stuff, then each class."""
    from cmt.data.panoptic.kinds import Tally
    from cmt.io.terminal import NUMBER, TEXT, print_table

    intervals = result["intervals"]
    groups = [
        (
            name.capitalize(),
            *_percents(result[name]),
            "{:.2f} to {:.2f}".format(*intervals[name]) if intervals else "",
            str(result[name]["n"]),
        )
        for name in ("all", "things", "stuff")
    ]
    classes = [
        (row["name"], *_percents(row), *(str(row[key]) for key in ("tp", "fp", "fn")))
        for row in result["per_class"].values()
    ]
    numbers = dict.fromkeys(("PQ", "SQ", "RQ"), NUMBER)
    level = f"PQ, {intervals['level']}%" if intervals else "interval of PQ"
    print_table({"": TEXT, **numbers, level: NUMBER, "classes": NUMBER}, groups)
    counts = dict.fromkeys(("TP", "FP", "FN"), NUMBER)
    print_table({"class": TEXT, **numbers, **counts}, classes)
    print(f"mIoU     {result['semantic']['miou']:.2f}")
    print(f"mask AP  {_shown_ap(result['mask_ap'])}")
    for line in Tally(result["notes"]).lines:
        print(f"note: {line}")
    if "with_pixel_areas" in result:
        pq, sq, rq = _percents(result["with_pixel_areas"]["all"])
        print(
            "note: the official formula takes areas of the ground truth from the json; "
            "where they are not those of the PNG, values may be wrong, and above 100; "
            f"with areas of the pixels: PQ {pq}, SQ {sq}, RQ {rq}"
        )


def _shown_ap(scores: dict[str, Any] | None) -> str:
    """AP and its variants in one line, or why there is none."""
    if scores is None:
        return 'none: it needs a "score" in every segment of a thing'
    values = {
        key.removeprefix("ap_").replace("ap", "AP"): "none"
        if value is None
        else f"{value:.2f}"
        for key, value in scores.items()
        if key != "per_class"
    }
    ap = values.pop("AP")
    others = ", ".join(f"{key} {value}" for key, value in values.items())
    return f"{ap} ({others})"


def _percents(scores: dict[str, Any]) -> list[str]:
    return [f"{scores[key]:.2f}" for key in ("pq", "sq", "rq")]
