"""What every test may use: quiet TensorFlow, the checkout, the shared material."""

from __future__ import annotations

import os
import pathlib

os.environ.setdefault("TF_USE_LEGACY_KERAS", "1")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")
os.environ.setdefault("MPLBACKEND", "Agg")

import pytest  # noqa: E402

ROOT = pathlib.Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def checkout() -> pathlib.Path:
    """The folder of the checkout the tests run from."""
    return ROOT


@pytest.fixture(scope="session")
def shared() -> pathlib.Path:
    """The folder of reference data: $CMT_SHARED, or `shared` beside the checkout.

    It is no part of the package. Tests that need it are skipped where it is missing,
    and the summary of the run says so.
    """
    folder = pathlib.Path(os.environ.get("CMT_SHARED", ROOT.parent / "shared"))
    if not (folder / "golden" / "README.md").is_file():
        pytest.skip(
            f"NOT VERIFIED: no reference data at {folder} (golden/README.md is"
            " missing); set CMT_SHARED to its folder"
        )
    return folder.resolve()
