"""`cmt doctor`: broken installations are told from sound ones, with what to do."""

from __future__ import annotations

import json
import sys
from importlib import metadata

import pytest
from packaging.requirements import Requirement

from cmt.cli import doctor
from cmt.cli.doctor import Finding
from cmt.cli.main import main


def run(capsys, *arguments: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as caught:
        main(["doctor", *arguments])
    captured = capsys.readouterr()
    return int(caught.value.code or 0), captured.out, captured.err


@pytest.mark.check
def test_all_that_works_here(capsys):
    code, out, _ = run(capsys, "--json")
    result = json.loads(out)
    found = {finding["name"]: finding for finding in result["findings"]}
    assert (code, result["ok"]) == (0, True)
    for name in ("tensorflow", "tf-keras", "orbax-export", "pycocotools"):
        version = metadata.version(name)
        fields = {"kind": "version", "name": name, "state": "ok", "found": version}
        assert found[name] == {**fields, "fix": ""}
    for name in ("graph", "network", "images", "masks", "training", "export"):
        assert found[name]["state"] == "ok", found[name]
    assert found["CPU"]["kind"] == "device"
    assert "tensorflow-addons" in found


def test_a_problem_is_shown_with_what_to_do_and_ends_with_1(capsys, monkeypatch):
    def broken() -> str:
        raise OSError("libfoo.so is missing\nand more")

    monkeypatch.setattr(doctor, "_tensorflow_import", lambda: doctor._python())
    monkeypatch.setattr(doctor, "_CHECKS", (("images", broken, "install libfoo"),))
    code, out, err = run(capsys)
    assert (code, err) == (1, "")
    lines = [" ".join(line.split()) for line in out.splitlines()]
    at = lines.index("problem images OSError: libfoo.so is missing")
    assert lines[at + 1] == "-> install libfoo"
    assert lines[-1] == "problems: 1; an arrow says what to do"
    code, out, _ = run(capsys, "--json")
    assert (code, json.loads(out)["ok"]) == (1, False)


@pytest.mark.parametrize(
    ("text", "installed", "state", "found", "fix"),
    [
        ("scipy>=1.11", "1.12.0", "ok", "1.12.0", ""),
        (
            "scipy>=1.11",
            "1.9.0",
            "problem",
            "1.9.0, must be >=1.11",
            "pip install 'scipy>=1.11'",
        ),
        ("scipy>=1.11", None, "problem", "not installed", "pip install 'scipy>=1.11'"),
        (
            "tensorflow-addons>=0.23",
            None,
            "note",
            "not installed; only the optimizers RADAM_LOOKAHEAD and LAMB need it",
            "pip install 'tensorflow-addons>=0.23'",
        ),
    ],
)
def test_versions(text, installed, state, found, fix, monkeypatch):
    def version(name: str) -> str:
        if installed is None:
            raise metadata.PackageNotFoundError(name)
        return installed

    monkeypatch.setattr(metadata, "version", version)
    requirement = Requirement(text)
    expected = Finding("version", requirement.name, state, found, fix)
    assert doctor._version(requirement.name, requirement) == expected


def test_requirements_of_another_python_are_no_problem(monkeypatch):
    required = [
        'tensorflow-addons>=0.23; python_version < "3"',
        'none-such>=1; python_version < "3"',
        'none-such>=1; extra == "beam"',
    ]
    monkeypatch.setattr(metadata, "requires", lambda name: required)
    [finding] = doctor._packages()
    assert (finding.name, finding.state) == ("tensorflow-addons", "ok")
    assert finding.found.startswith('not for this Python (python_version < "3"); only')


def test_a_package_that_is_not_installed_is_a_note(monkeypatch):
    def requires(name: str) -> list[str]:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "requires", requires)
    [finding] = doctor._packages()
    assert (finding.state, finding.name) == ("note", "cmt-deeplab")
    assert "pip install ." in finding.fix


@pytest.mark.parametrize(
    ("module", "found", "fix"),
    [
        ("raise ImportError('no libcudart')", "ImportError: no libcudart", "pip inst"),
        (
            "import os, signal; os.kill(os.getpid(), signal.SIGILL)",
            "ended by SIGILL: no message",
            "a processor with AVX",
        ),
    ],
)
def test_a_tensorflow_that_cannot_be_imported(
    module, found, fix, tmp_path, monkeypatch
):
    (tmp_path / "tensorflow.py").write_text(module)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    finding = doctor._tensorflow_import()
    assert (finding.state, finding.found) == ("problem", found)
    assert fix in finding.fix
    # What needs TensorFlow is not tried then.
    assert list(doctor.find())[-1] == finding


@pytest.mark.parametrize(
    ("files", "visible", "state", "found", "fix"),
    [
        ([], "-1", "ok", "none; training", ""),
        (["nvidia0"], "-1", "note", "hidden by CUDA_VISIBLE_DEVICES=-1", "unset CUDA"),
        (["nvidia0"], "1", "note", "nvidia0 is there, but", "pip install '.[gpu]'"),
        (["nvidiactl"], "1", "ok", "none; training", ""),
    ],
)
def test_gpus_that_tensorflow_does_not_find(
    files, visible, state, found, fix, tmp_path, monkeypatch
):
    import tensorflow as tf

    for name in files:
        (tmp_path / name).touch()
    monkeypatch.setattr(doctor, "_DEVICE_FILES", tmp_path)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: [])
    cpu, gpu = doctor._devices()
    assert (cpu.name, gpu.name, gpu.state) == ("CPU", "GPU", state)
    assert found in gpu.found
    assert fix in gpu.fix


@pytest.mark.parametrize(
    ("target", "check", "message"),
    [
        ("pycocotools.mask.area", doctor._check_masks, "must be 5; got 0"),
        ("tensorflow.io.decode_jpeg", doctor._check_images, "disagree about a JPEG"),
        ("tensorflow.linalg.matmul", doctor._check_graph, "multiplies wrongly"),
    ],
)
def test_wrong_results_are_seen(target, check, message, monkeypatch):
    import tensorflow as tf

    monkeypatch.setattr(target, lambda *arguments: tf.zeros([], tf.int32))
    finding = doctor._try("x", check, "do that")
    assert (finding.state, finding.fix) == ("problem", "do that")
    assert message in finding.found


def test_addons_that_do_not_work_are_a_note(monkeypatch):
    [(name, check, fix)] = [c for c in doctor._CHECKS if c[0] == "optimizers"]
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    found = doctor._try(name, check, fix).found
    assert found.startswith("RADAM_LOOKAHEAD and LAMB are not")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: "there")
    monkeypatch.setitem(sys.modules, "tensorflow_addons", None)
    finding = doctor._try(name, check, fix)
    assert finding.state == "note"
    assert "cannot be imported here" in finding.found
    assert finding.fix.startswith("choose ADAM or ADAMW")
