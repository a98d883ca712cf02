"""Installs the top-level folders as one package, `cmt`."""

from __future__ import annotations

import setuptools

FOLDERS = {
    "cmt": "cmt",
    "cmt.configs": "configs",
    "cmt.data": "data",
    "cmt.evaluation": "evaluation",
    "cmt.protos": "protos",
    "cmt.trainer": "trainer",
}

setuptools.setup(
    package_dir=FOLDERS,
    packages=[
        *FOLDERS,
        *(f"cmt.{name}" for name in setuptools.find_packages("cmt")),
    ],
    package_data={
        "cmt.configs": ["**/*.textproto"],
        "cmt.protos": ["*.proto", "*.pyi"],
    },
)
