"""CPU time of `cmt score` on one worker to that of hotcoco, a scorer in Rust.

    python benchmarks/score.py --annotations panoptic_val2017.json \
        --masks panoptic_val2017 [--count 270] [--peer OTHER/.venv/bin/python]

Makes pairs of panoptic maps of COCO's size, with crowd, void, tiny segments and ids up
to 2**24 - 1, from the real ones given; scores the files with both, in processes of
their own, in turn; prints medians with the start of the programs, and the largest
difference of any PQ, SQ or RQ.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from cmt.data.panoptic.masks import read_ids, write_ids

ROUNDS = 5
_SHIFT, _HOLE = 1 / 40, 1 / 12  # at the most, of the shorter side
_PEER = """
import json, sys
from hotcoco.panoptic import PanopticEval
gt, gt_folder, pred, pred_folder = sys.argv[1:]
ev = PanopticEval(gt, pred, gt_folder=gt_folder, pred_folder=pred_folder)
ev.evaluate()
print(json.dumps(ev.results()))
"""


class Files(NamedTuple):
    """Two COCO panoptic jsons and the folders of their PNGs."""

    gt: Path
    gt_masks: Path
    pred: Path
    pred_masks: Path


def make_pairs(annotations: Path, masks: Path, folder: Path, count: int) -> Files:
    """Writes `count` ground truths and disturbed predictions, from seed 0.

    Args:
      annotations: a COCO panoptic json.
      masks: the folder of its PNGs.
      folder: gets the files.
      count: how many pairs; real maps are used again and again.
    """
    source = json.loads(annotations.read_text())
    files = Files(*(folder / n for n in ("gt.json", "gt", "pred.json", "pred")))
    for path in (files.gt_masks, files.pred_masks):
        path.mkdir()
    rng = np.random.default_rng(0)
    things = {c["id"] for c in source["categories"] if c["isthing"]}
    gt, pred = ({"images": [], "annotations": []} for _ in range(2))
    for number in range(count):
        entry = source["annotations"][number % len(source["annotations"])]
        ids = read_ids(masks / entry["file_name"])
        infos = entry["segments_info"]
        pair = (
            (gt, files.gt_masks, *_renumbered(rng, *_truth(rng, ids, infos, things))),
            (
                pred,
                files.pred_masks,
                *_renumbered(rng, *_disturbed(rng, ids, infos, things)),
            ),
        )
        for content, mask_folder, new_ids, segments in pair:
            write_ids(mask_folder / f"{number}.png", new_ids)
            height, width = ids.shape
            image = {"id": number, "file_name": f"{number}.jpg"}
            content["images"].append({**image, "height": height, "width": width})
            content["annotations"].append(
                {
                    "image_id": number,
                    "file_name": f"{number}.png",
                    "segments_info": segments,
                }
            )
    for path, content in ((files.gt, gt), (files.pred, pred)):
        path.write_text(json.dumps({**content, "categories": source["categories"]}))
    return files


def _truth(
    rng: np.random.Generator, ids: np.ndarray, infos: list[dict], things: set[int]
) -> tuple:
    """Some things are crowd, and one of few pixels lies on top of the others."""
    infos = [dict(info) for info in infos]
    for info in infos:
        if info["category_id"] in things and rng.random() < 0.15:
            info["iscrowd"] = 1
    return _with_tiny(rng, ids, infos, things)


def _disturbed(
    rng: np.random.Generator, ids: np.ndarray, infos: list[dict], things: set[int]
) -> tuple:
    """The segments are moved, some lost, merged or of another class, with holes."""
    infos = [{**info, "iscrowd": 0} for info in infos]
    shift, hole = (int(share * min(ids.shape)) for share in (_SHIFT, _HOLE))
    ids = np.roll(ids, rng.integers(-shift, shift + 1, 2), (0, 1))
    for info in infos:
        draw = rng.random()
        if draw < 0.1:
            ids = np.where(ids == info["id"], 0, ids)
        elif draw < 0.2:
            other = infos[rng.integers(len(infos))]
            ids = np.where(ids == info["id"], other["id"], ids)
        elif draw < 0.3:
            info["category_id"] = infos[rng.integers(len(infos))]["category_id"]
    top, left = (rng.integers(0, side - hole) for side in ids.shape)
    ids = ids.copy()
    ids[top : top + hole, left : left + hole] = 0
    return _with_tiny(rng, ids, infos, things)


def _with_tiny(
    rng: np.random.Generator, ids: np.ndarray, infos: list[dict], things: set[int]
) -> tuple:
    """Adds a thing of 1 to 9 pixels, of a class that is there or any other."""
    classes = [i["category_id"] for i in infos if i["category_id"] in things]
    category = int(rng.choice([*classes, min(things)]))
    free = next(n for n in range(1, 2**24) if n not in {info["id"] for info in infos})
    top, left = (rng.integers(0, side - 3) for side in ids.shape)
    height, width = rng.integers(1, 4, 2)
    ids = ids.copy()
    ids[top : top + height, left : left + width] = free
    return ids, [*infos, {"id": free, "category_id": category, "iscrowd": 0}]


def _renumbered(rng: np.random.Generator, ids: np.ndarray, infos: list[dict]) -> tuple:
    """New ids from all that there may be; only segments with pixels, and areas."""
    old, index, counts = np.unique(ids, return_inverse=True, return_counts=True)
    new = rng.choice(2**24 - 1, len(old), replace=False) + 1
    new[old == 0] = 0
    numbers, areas = (
        dict(zip(old.tolist(), values.tolist(), strict=True))
        for values in (new, counts)
    )
    segments: list[dict[str, Any]] = []
    for info in infos:
        if info["id"] in numbers:
            known = {"id": numbers[info["id"]], "area": areas[info["id"]]}
            segments.append({**info, **known})
    return new[index].reshape(ids.shape), segments


def run(command: list[str]) -> tuple[float, dict[str, Any]]:
    """Runs a program that prints json; CPU seconds of it, and the json."""
    with tempfile.TemporaryFile("w+") as output:
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.PIPE)
        errors = process.stderr.read()
        _, status, usage = os.wait4(process.pid, 0)
        if status:
            raise SystemExit(errors.decode())
        output.seek(0)
        return usage.ru_utime + usage.ru_stime, json.load(output)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--annotations", type=Path, required=True)
    parser.add_argument("--masks", type=Path, required=True)
    parser.add_argument("--count", type=int, default=270)
    parser.add_argument("--peer", default=sys.executable, help="Python with hotcoco.")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        files = make_pairs(
            options.annotations, options.masks, Path(folder), options.count
        )
        words = [
            word
            for name, path in files._asdict().items()
            for word in (f"--{name.replace('_', '-')}", str(path))
        ]
        ours = [sys.executable, "-m", "cmt", "score", *words, "--json"]
        peer = [options.peer, "-c", _PEER, *map(str, files)]
        rounds = [(run([*ours, "--workers", "1"]), run(peer)) for _ in range(ROUNDS)]
    times = [[seconds for seconds, _ in side] for side in zip(*rounds, strict=True)]
    (_, found), (_, wanted) = rounds[0]
    difference = max(
        abs(found[group.lower()][key] / 100 - wanted[group][key])
        for group in ("All", "Things", "Stuff")
        for key in ("pq", "sq", "rq")
    )
    for name, seconds in zip(("cmt score", "hotcoco"), times, strict=True):
        shown = ", ".join(f"{s:.2f}" for s in sorted(seconds))
        print(f"{name:9}  median {statistics.median(seconds):.2f} s of CPU ({shown})")
    ratio = statistics.median(a / b for a, b in zip(*times, strict=True))
    print(f"{options.count} maps: {ratio:.2f} x the time of hotcoco")
    print(f"largest difference of PQ, SQ and RQ: {difference:.1e}")


if __name__ == "__main__":
    main()
