"""`cmt score` as a user meets it: table, json, exit codes."""

from __future__ import annotations

import json
import pathlib

import numpy as np
import pytest

from cmt.cli.main import main
from cmt.data.panoptic.categories import Category
from cmt.data.panoptic.predictions import write_predictions

CATEGORIES = [
    Category(7, "disc", True, (255, 0, 0)),
    Category(200, "grass", False, (0, 0, 255)),
]


@pytest.fixture
def arguments(tmp_path) -> list[str]:
    """The line that scores a prediction in which one of two discs is missing."""
    gt = np.array([[7001, 7001, 7002, 200000, 0]], np.int32)
    for name, panoptic in (("gt", gt), ("pred", np.where(gt == 7002, 0, gt))):
        with write_predictions(tmp_path / name, CATEGORIES) as writer:
            writer.add(1, "a.jpg", panoptic)
    line = ["score"]
    for name in ("gt", "pred"):
        line += [f"--{name}", str(tmp_path / name / "panoptic.json")]
        line += [f"--{name}-masks", str(tmp_path / name / "panoptic")]
    return line


def run(arguments, capsys) -> tuple[int, str, str]:
    """Exit code, standard output, standard error."""
    with pytest.raises(SystemExit) as exit_of:
        main(arguments)
    return exit_of.value.code or 0, *capsys.readouterr()


def test_json_is_all_there_is_on_standard_output(arguments, capsys):
    code, out, _ = run([*arguments, "--json"], capsys)
    assert code == 0
    result = json.loads(out)
    groups = {"all", "things", "stuff", "per_class"}
    groups |= {"by_size", "by_things", "intervals", "semantic", "mask_ap", "notes"}
    assert set(result) == groups
    assert result["notes"] == {} and result["mask_ap"] is None
    assert result["intervals"] is None  # There is one image.
    assert result["things"]["pq"] == pytest.approx(100 / 1.5)
    assert result["stuff"] == {"pq": 100.0, "sq": 100.0, "rq": 100.0, "n": 1}
    disc = result["per_class"]["7"]
    assert (disc["name"], disc["tp"], disc["fp"], disc["fn"]) == ("disc", 1, 0, 1)


def test_the_table_has_groups_and_classes(arguments, capsys):
    code, out, _ = run([*arguments, "--workers", "1"], capsys)
    assert code == 0
    rows = [line.replace("│", " ").split() for line in out.splitlines()]
    assert ["All", "83.33", "100.00", "83.33", "2"] in rows
    assert ["Things", "66.67", "100.00", "66.67", "1"] in rows
    assert ["Stuff", "100.00", "100.00", "100.00", "1"] in rows
    assert ["disc", "66.67", "100.00", "66.67", "1", "0", "1"] in rows
    assert ["grass", "100.00", "100.00", "100.00", "1", "0", "0"] in rows
    assert "mIoU     83.33" in out  # Of three pixels of discs one is void.
    assert 'mask AP  none: it needs a "score" in every segment of a thing' in out


@pytest.mark.parametrize("as_json", [False, True])
def test_scores_of_segments_give_mask_ap_and_images_an_interval(
    arguments, capsys, tmp_path, as_json
):
    """Discs of IoU 1, 1 and, with the best score, 0: precision 1/2 and 2/3, recall 1/3
    and 2/3; 67 of the 101 points of recall are reached at 2/3."""
    gt = np.array([[7001, 7001, 7002, 200000, 0]], np.int32)
    pred = np.array([[7001, 7001, 7002, 200000, 0]], np.int32)
    other = np.array([[200000, 7005, 0, 0, 0]], np.int32)
    with write_predictions(tmp_path / "gt", CATEGORIES) as writer:
        writer.add(1, "a.jpg", gt)
        writer.add(2, "b.jpg", np.array([[200000, 200000, 7001, 0, 0]], np.int32))
    with write_predictions(tmp_path / "pred", CATEGORIES) as writer:
        writer.add(1, "a.jpg", pred, {7001: 0.5, 7002: 0.5, 200000: 0.9})
        writer.add(2, "b.jpg", other, {7005: 0.75, 200000: 0.25})
    path = tmp_path / "images.csv"
    more = ["--per-image", str(path), *(["--json"] if as_json else [])]
    code, out, _ = run([*arguments, *more], capsys)
    assert code == 0
    lines = path.read_text().splitlines()
    assert lines[0].startswith(
        "image_id,file_name,category_id,isthing,pq,sq,rq,iou_sum"
    )
    assert lines[1:4] == [
        "1,a.jpg,all,,100.0,100.0,100.0,3.0,3,0,0",
        "1,a.jpg,7,1,100.0,100.0,100.0,2.0,2,0,0",
        "1,a.jpg,200,0,100.0,100.0,100.0,1.0,1,0,0",
    ]
    assert lines[4] == "2,b.jpg,all,,0.0,0.0,0.0,0.0,0,2,2"
    ap = 100 * 67 / 101 * 2 / 3
    if as_json:
        found = json.loads(out)
        assert found["mask_ap"]["ap"] == pytest.approx(ap)
        assert found["mask_ap"]["ap_large"] is None
        assert found["intervals"]["all"] == [0.0, 100.0]
    else:
        assert f"mask AP  {ap:.2f} (AP50 {ap:.2f}, AP75 {ap:.2f}, small {ap:.2f}" in out
        assert "medium none, large none)" in out
        rows = [line.replace("│", " ").split() for line in out.splitlines()]
        # 2 IoU of 2 TP and 1 FP and 1 FN; 1 of 1 TP, 1 FP, 1 FN.
        assert ["All", "58.33", "100.00", "58.33", "0.00", "to", "100.00", "2"] in rows


def test_bad_input_is_one_line_and_exit_code_2(arguments, capsys, tmp_path):
    (tmp_path / "pred" / "panoptic" / "a.png").unlink()
    code, out, err = run([*arguments, "--json"], capsys)
    assert (code, out) == (2, "")
    [line] = [line for line in err.splitlines() if line.startswith("error: ")]
    assert "a.png" in line
    assert "Traceback" not in err


def test_help_shows_an_example(capsys):
    code, out, _ = run(["score", "--help"], capsys)
    assert code == 0
    assert "cmt score --gt" in out


def test_more_than_100_says_why(arguments, capsys):
    """And what it is with areas of the pixels, in one line."""
    path = pathlib.Path(arguments[arguments.index("--gt") + 1])
    content = json.loads(path.read_text())
    infos = content["annotations"][0]["segments_info"]
    for info in infos:
        info["area"] *= 0.9
    path.write_text(json.dumps(content))
    code, out, _ = run(
        [
            "score",
            *arguments[1:5],
            "--pred",
            arguments[2],
            "--pred-masks",
            arguments[4],
        ],
        capsys,
    )
    assert code == 0 and "111.11" in out
    notes = [line for line in out.splitlines() if line.startswith("note: ")]
    assert len(notes) == 2
    assert notes[0].startswith(f"note: area: {len(infos)}, such as ")
    assert "with areas of the pixels: PQ 100.00" in notes[1]
