"""Compiles protos/*.proto to the `_pb2` modules and stubs beside them.

Usage: python tools/compile_protos.py [--output DIR]     (needs the extra `test`)
"""

from __future__ import annotations

import argparse
import pathlib
import shutil
import subprocess
import tempfile

import protoc

ROOT = pathlib.Path(__file__).resolve().parent.parent
SOURCES = sorted((ROOT / "protos").glob("*.proto"))


def compile_protos(output: pathlib.Path) -> None:
    """Writes `X_pb2.py` and `X_pb2.pyi` of every `protos/X.proto` to `output`."""
    with tempfile.TemporaryDirectory() as scratch:
        arguments = [
            protoc.PROTOC_EXE,
            f"--proto_path=cmt/protos={ROOT / 'protos'}",
            f"--proto_path={protoc.PROTOC_INCLUDE_DIR}",
            f"--python_out={scratch}",
            f"--pyi_out={scratch}",
            *(str(source) for source in SOURCES),
        ]
        if subprocess.run(arguments, check=False).returncode != 0:
            raise SystemExit("protoc failed; its message is above")
        output.mkdir(parents=True, exist_ok=True)
        for generated in sorted((pathlib.Path(scratch) / "cmt/protos").iterdir()):
            shutil.copyfile(generated, output / generated.name)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=pathlib.Path, default=ROOT / "protos")
    compile_protos(parser.parse_args().output)
