"""File names that are refused, and files that are no json."""

from __future__ import annotations

import json

import pytest

from cmt.data.panoptic.json import JsonFault, load_json
from tests.data import faults
from tests.data.conversions import convert


@pytest.fixture
def data(broken) -> faults.DataSet:
    return faults.DataSet(broken)


NAMES = {
    "a\0.png": "have no control characters",
    "\ud800.jpg": "have no control characters",
    "a\nb.jpg": "have no control characters",
    "a\u2028b.jpg": "have no control characters",
    "/etc/passwd": "lie below the folder",
    "../val/000000000001.jpg": "lie below the folder",
    "a/../../val/000000000001.jpg": "lie below the folder",
    "..": "lie below the folder",
    "gs://bucket/a.jpg": "lie below the folder",
    "x" * 252 + ".jpg": "have at most 1024 bytes, and 255 between two /",
    "xyz/" * 260 + "a.jpg": "have at most 1024 bytes",
    ".": "name a file; got '.'; correct it",
}


@pytest.mark.parametrize("key", ["images", "annotations"])
@pytest.mark.parametrize("name", NAMES)
def test_names_that_no_file_should_have(data, tmp_path, name, key):
    data.content[key][0]["file_name"] = name
    found = data.found()
    (problem,) = found.problems
    assert problem.kind == ("json structure" if name == "." else "file name")
    assert f'{key}[0]: "file_name" must {NAMES[name]}' in problem.line
    assert len(problem.line.splitlines()) == 1
    assert problem.line.encode() and len(problem.message) < 200
    kept = convert(
        **data.sources, output=tmp_path / "out", split="val", workers=1, max_bad=1
    )
    assert kept.num_images == 5 and len(kept.contents.skipped) == 1


@pytest.mark.parametrize("name", ["x" * 251 + ".jpg", "ä.jpg", "./a.jpg", "a b.jpg"])
def test_names_that_files_may_have(data, name):
    data.image().rename(data.sources["images"] / name)
    data.content["images"][0]["file_name"] = name
    assert data.found().problems == []


@pytest.mark.parametrize("depth", [0, 800])
def test_values_of_any_size_are_shown_short(data, depth):
    value = [7] * 100_000
    for _ in range(depth):
        value = [value]
    data.content["images"][0]["height"] = value
    data.infos(2)[0]["bbox"] = value
    data.infos(3)[0]["iscrowd"] = "x" * 10_000
    data.content["categories"][0]["color"] = value
    problems = data.found(strict=True).problems
    assert len(problems) == 4
    assert all(len(problem.line) < 500 for problem in problems)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("[" * 100_000, "nested too deeply"),
        ("{", "not a json file: "),
        ("[]", "must hold a json object; got list"),
    ],
)
def test_a_json_that_is_none_is_a_problem_with_a_fix(data, text, reason):
    path = data.sources["annotations"]
    data.content = {}
    with pytest.raises(JsonFault, match=reason) as error:
        path.write_text(text)
        load_json(path)
    fault = error.value
    assert str(fault) == f"{path}: {fault.reason}; {fault.fix}" and fault.fix


def test_the_mark_that_editors_of_windows_write(data):
    path = data.sources["annotations"]
    path.write_bytes(b"\xef\xbb\xbf" + json.dumps(data.content).encode())
    assert load_json(path) == data.content
