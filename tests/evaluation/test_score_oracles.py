"""Scores of many disturbed maps: equal to hotcoco's, pycocotools' and plain loops."""

from __future__ import annotations

import csv
import json

import numpy as np
import pytest
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from benchmarks.score import make_pairs
from cmt.data.panoptic.masks import read_ids
from cmt.data.scenes.generate import generate_scenes
from cmt.evaluation.bootstrap import RESAMPLES, panoptic_quality
from cmt.evaluation.score import score_files

GROUPS = ("all", "things", "stuff")
KEYS = ("pq", "sq", "rq")


def disturbed(folder, count: int):
    """Disturbed maps of generated scenes, of which every second segment has a score."""
    generate_scenes(folder, train=0, val=5, size=97, seed=3, workers=1)
    annotations = folder / "annotations"
    (folder / "pairs").mkdir()
    return make_pairs(
        annotations / "panoptic_val.json",
        annotations / "panoptic_val",
        folder / "pairs",
        count,
    )


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    return disturbed(tmp_path_factory.mktemp("disturbed"), 40)


@pytest.fixture(scope="module")
def scored(files, tmp_path_factory):
    """The files with a score in each predicted segment, their scores, and the CSV."""
    rng = np.random.default_rng(1)
    content = json.loads(files.pred.read_text())
    for entry in content["annotations"]:
        for info in entry["segments_info"]:
            # Few values, so that many are equal.
            info["score"] = float(rng.integers(1, 8)) / 8
    folder = tmp_path_factory.mktemp("scored")
    path, per_image = folder / "pred.json", folder / "images.csv"
    path.write_text(json.dumps(content))
    files = files._replace(pred=path)
    return files, score_files(*files, per_image=per_image), per_image


@pytest.mark.parametrize("count", [0, pytest.param(1000, marks=pytest.mark.slow)])
def test_panoptic_quality_equals_hotcoco(files, count, tmp_path):
    hotcoco = pytest.importorskip(
        "hotcoco.panoptic",
        reason="NOT VERIFIED against hotcoco: it is not installed; pip install hotcoco",
    )
    if count:
        files = disturbed(tmp_path, count)
    gt, gt_masks, pred, pred_masks = map(str, files)
    theirs = hotcoco.PanopticEval(gt, pred, gt_folder=gt_masks, pred_folder=pred_masks)
    theirs.evaluate()
    wanted, ours = theirs.results(), score_files(*files)
    for group in GROUPS:
        for key in KEYS:
            wanted_value = wanted[group.capitalize()][key]
            assert ours[group][key] / 100 == pytest.approx(wanted_value, abs=1e-9)
    assert 10 < ours["all"]["pq"] < 90


def instances_of(files) -> tuple[dict, list]:
    """The things of both sides as COCO instances, masks run-length encoded."""
    gt, pred = (json.loads(path.read_text()) for path in (files.gt, files.pred))
    things = {c["id"] for c in gt["categories"] if c["isthing"]}
    sides = []
    for content, masks in ((gt, files.gt_masks), (pred, files.pred_masks)):
        found = []
        for entry in content["annotations"]:
            ids = read_ids(masks / entry["file_name"])
            for info in entry["segments_info"]:
                if info["category_id"] in things:
                    mask = np.asfortranarray(ids == info["id"]).astype(np.uint8)
                    common = {"image_id": entry["image_id"], "score": info.get("score")}
                    common |= {k: info[k] for k in ("category_id", "iscrowd")}
                    area = int(mask.sum())
                    number = len(found) + 1
                    rle = coco_mask.encode(mask)
                    found.append(
                        {**common, "id": number, "area": area, "segmentation": rle}
                    )
        sides.append(found)
    categories = [c for c in gt["categories"] if c["isthing"]]
    truth = {"images": gt["images"], "annotations": sides[0], "categories": categories}
    return truth, sides[1]


def test_mask_ap_equals_pycocotools_on_masks(scored):
    files, result, _ = scored
    truth = COCO()
    truth.dataset, found = instances_of(files)
    truth.createIndex()
    plain = COCOeval(truth, truth.loadRes(found), "segm")
    plain.evaluate()
    plain.accumulate()
    plain.summarize()
    names = ("ap", "ap50", "ap75", "ap_small", "ap_medium", "ap_large")
    for name, wanted in zip(names, plain.stats[:6], strict=True):
        if wanted == -1:
            assert result["mask_ap"][name] is None
        else:
            assert result["mask_ap"][name] == pytest.approx(100 * wanted, abs=1e-9)
    assert 5 < result["mask_ap"]["ap"] < 95
    of_class = plain.eval["precision"][:, :, :, 0, -1].mean(axis=(0, 1))
    known = {
        str(category): 100 * ap
        for category, ap in zip(plain.params.catIds, of_class, strict=True)
        if ap > -1
    }
    assert result["mask_ap"]["per_class"] == pytest.approx(known)


def test_there_is_no_mask_ap_without_scores(files):
    assert score_files(*files)["mask_ap"] is None


def test_miou_equals_a_loop_over_classes(scored):
    files, result, _ = scored
    gt, pred = (json.loads(path.read_text()) for path in (files.gt, files.pred))
    both, either = {}, {}
    for sides in zip(gt["annotations"], pred["annotations"], strict=True):
        classes = []
        for entry, masks in zip(sides, (files.gt_masks, files.pred_masks), strict=True):
            ids = read_ids(masks / entry["file_name"])
            semantic = np.zeros_like(ids)
            for info in entry["segments_info"]:
                semantic[ids == info["id"]] = info["category_id"]
            classes.append(semantic)
        counted = classes[0] > 0
        for category in (c["id"] for c in gt["categories"]):
            a, b = (semantic[counted] == category for semantic in classes)
            both[category] = both.get(category, 0) + (a & b).sum()
            either[category] = either.get(category, 0) + (a | b).sum()
    wanted = {str(c): 100 * both[c] / either[c] for c in either if either[c]}
    assert result["semantic"]["per_class"] == pytest.approx(wanted)
    assert result["semantic"]["miou"] == pytest.approx(np.mean(list(wanted.values())))


def counts_by_image(path, categories) -> np.ndarray:
    """[I, C, 4] of the lines of classes."""
    images, places = {}, {str(c["id"]): i for i, c in enumerate(categories)}
    with path.open() as file:
        for line in csv.DictReader(file):
            counts = images.setdefault(line["image_id"], np.zeros([len(places), 4]))
            if line["category_id"] != "all":
                values = [float(line[k]) for k in ("iou_sum", "tp", "fp", "fn")]
                counts[places[line["category_id"]]] = values
    return np.stack(list(images.values()))


def test_the_lines_of_images_add_up(scored):
    files, result, path = scored
    categories = json.loads(files.gt.read_text())["categories"]
    counts = counts_by_image(path, categories)
    assert len(counts) == 40
    totals = counts.sum(axis=0)
    for category, found in zip(categories, totals, strict=True):
        if found[1:].any():
            row = result["per_class"][str(category["id"])]
            wanted = [row[key] for key in ("iou_sum", "tp", "fp", "fn")]
            assert found.tolist() == pytest.approx(wanted)
    lines = list(csv.DictReader(path.open()))
    whole = [line for line in lines if line["category_id"] == "all"]
    assert [line["file_name"] for line in whole] == [f"{i}.jpg" for i in range(40)]
    for line, of_image in zip(whole, counts, strict=True):
        assert float(line["pq"]) == pytest.approx(panoptic_quality(of_image))
        assert line["isthing"] == ""
    is_thing = {str(c["id"]): str(c["isthing"]) for c in categories}
    of_classes = [line for line in lines if line["category_id"] != "all"]
    assert all(x["isthing"] == is_thing[x["category_id"]] for x in of_classes)
    found = of_classes[0]
    iou, tp, fp, fn = (float(found[k]) for k in ("iou_sum", "tp", "fp", "fn"))
    quality = [iou / (tp + fp / 2 + fn / 2), iou / tp if tp else 0]
    quality.append(tp / (tp + fp / 2 + fn / 2))
    assert [float(found[k]) / 100 for k in KEYS] == pytest.approx(quality)


def test_intervals_equal_a_loop_over_resamples(scored):
    files, result, path = scored
    categories = json.loads(files.gt.read_text())["categories"]
    counts = counts_by_image(path, categories)
    is_thing = np.array([bool(c["isthing"]) for c in categories])
    members = {"all": is_thing | True, "things": is_thing, "stuff": ~is_thing}
    rng = np.random.default_rng(0)
    times = rng.multinomial(40, np.full(40, 1 / 40), size=RESAMPLES)
    for group in GROUPS:
        drawn = [
            panoptic_quality(np.repeat(counts, n, axis=0).sum(axis=0)[members[group]])
            for n in times
        ]
        wanted = np.percentile(drawn, [2.5, 97.5])
        low, high = result["intervals"][group]
        assert [low, high] == pytest.approx(wanted.tolist())
        assert low < result[group]["pq"] < high
    assert (result["intervals"]["level"], result["intervals"]["resamples"]) == (
        95,
        2000,
    )
