"""Installs the top-level folders as one package, `cmt`."""

from __future__ import annotations

import setuptools

FOLDERS = {
    "cmt": "cmt",
    "cmt.configs": "configs",
    "cmt.data": "data",
    "cmt.evaluation": "evaluation",
    "cmt.protos": "protos",
    "cmt.serving": "serving",
    "cmt.trainer": "trainer",
}

setuptools.setup(
    package_dir=FOLDERS,
    packages=[
        f"{package}.{inner}" if inner else package
        for package, folder in FOLDERS.items()
        for inner in ("", *setuptools.find_packages(folder))
    ],
    package_data={
        "cmt.evaluation": ["templates/*"],
        "cmt.pictures": ["templates/*"],
        "cmt.serving": ["templates/*"],
        "cmt.configs": ["**/*.textproto", "**/*.json"],
        "cmt.protos": ["*.proto", "*.pyi"],
    },
)
