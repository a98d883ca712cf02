"""CMT-DeepLab: panoptic segmentation with clustering mask transformers.

Yu et al., "CMT-DeepLab: Clustering Mask Transformers for Panoptic Segmentation",
CVPR 2022. Names resolve on first use; importing `cmt` itself loads no TensorFlow.
"""

from __future__ import annotations

import importlib
import pathlib

__version__ = "0.1.0"

_HERE = pathlib.Path(__file__).resolve().parent
if not (_HERE / "protos").is_dir():
    # This is a checkout: `cmt.protos` and the others lie beside this folder (setup.py).
    # Python finds `./cmt` there before an installed one, as in `python -m cmt`.
    __path__.append(str(_HERE.parent))

_MODULES = (
    "backbone",
    "clustering",
    "decoder",
    "errors",
    "heads",
    "layers",
    "losses",
    "matching",
    "outputs",
    "postprocess",
    "weights",
)
_NAMES = {
    "CMTDeepLab": "cmt.model",
    "RecursiveCMTDeepLab": "cmt.model",
    "LayerPredictions": "cmt.outputs",
    "Predictions": "cmt.outputs",
    "Targets": "cmt.outputs",
    "build_loss": "cmt.factory",
    "build_model": "cmt.factory",
    "list_models": "cmt.factory",
    "merge_options": "cmt.factory",
}

__all__ = ["__version__", *_MODULES, *_NAMES]


def __getattr__(name: str):
    if name in _MODULES:
        return importlib.import_module(f"cmt.{name}")
    if name in _NAMES:
        return getattr(importlib.import_module(_NAMES[name]), name)
    raise AttributeError(f"module 'cmt' has no attribute '{name}'")


def __dir__() -> list[str]:
    return sorted(__all__)
