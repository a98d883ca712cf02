"""The schema: compiled, documented, with a default and a rule for every number."""

from __future__ import annotations

import importlib.util
import re

import pytest

from cmt import textproto
from cmt.protos import experiment_pb2, options_pb2

LEAVES = list(textproto.leaf_paths(experiment_pb2.ExperimentConfig.DESCRIPTOR))
FIELD = re.compile(r"^\s*(optional|repeated|required)\s+\S+\s+(\w+)\s*=\s*\d+")
VALUE = re.compile(r"^\s*([A-Z][A-Z0-9_]*)\s*=\s*(\d+);")


@pytest.mark.check
def test_generated_files_are_those_of_the_proto_files(checkout, tmp_path):
    script = checkout / "tools" / "compile_protos.py"
    spec = importlib.util.spec_from_file_location("compile_protos", script)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.compile_protos(tmp_path)
    fresh = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    committed = {
        path.name: path.read_bytes()
        for path in (checkout / "protos").glob("*_pb2.py*")
        if path.suffix in (".py", ".pyi")
    }
    assert len(fresh) == 2 * len(list((checkout / "protos").glob("*.proto")))
    assert sorted(fresh) == sorted(committed)
    stale = [name for name, text in fresh.items() if committed[name] != text]
    assert not stale, "run `make protos`"


def test_every_message_enum_and_field_has_a_comment(checkout):
    bare, found = [], 0
    for path in sorted((checkout / "protos").glob("*.proto")):
        lines = path.read_text().splitlines()
        for number, line in enumerate(lines, 1):
            value = VALUE.match(line)
            unspecified = value and value[1].endswith("_UNSPECIFIED")
            is_type = re.match(r"^(message|enum)\s", line)
            if unspecified or not (FIELD.match(line) or value or is_type):
                continue
            found += 1
            if not lines[number - 2].lstrip().startswith("//"):
                bare.append(f"{path.name}:{number}")
    assert found > len(LEAVES)
    assert not bare


def test_every_field_but_text_has_an_explicit_default():
    text = textproto.Field.CPPTYPE_STRING
    assert not [
        path
        for path, field in LEAVES
        if field.cpp_type != text and not field.has_default_value
    ]


def test_every_number_has_a_rule_its_default_obeys():
    numbers = (textproto.Field.CPPTYPE_INT32, textproto.Field.CPPTYPE_FLOAT)
    for path, field in LEAVES:
        if field.cpp_type in numbers:
            assert field.GetOptions().HasExtension(options_pb2.rule), path
            rule = field.GetOptions().Extensions[options_pb2.rule]
            assert rule.HasField("min"), path
            assert field.default_value >= rule.min, path


@pytest.mark.parametrize("path", [path for path, _ in LEAVES])
def test_fields_are_of_the_kinds_the_reader_knows(path):
    field = dict(LEAVES)[path]
    known = {
        textproto.Field.CPPTYPE_INT32,
        textproto.Field.CPPTYPE_FLOAT,
        textproto.Field.CPPTYPE_BOOL,
        textproto.Field.CPPTYPE_STRING,
        textproto.Field.CPPTYPE_ENUM,
    }
    assert field.cpp_type in known
    assert field.has_presence
    if field.cpp_type == textproto.Field.CPPTYPE_ENUM:
        first = field.enum_type.values_by_number[0]
        assert first.name.endswith("_UNSPECIFIED")
        assert field.default_value != 0
