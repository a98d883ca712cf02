"""How much the resident memory of a process rises while a function runs.

To be used in a fresh process whose environment holds `RETURN_MEMORY`.
"""

from __future__ import annotations

import ctypes
import gc
import pathlib
from collections.abc import Callable

# Each tensor goes back to the system when it is freed, so that resident memory is
# what tensors take; without these, pools of TensorFlow and the C library keep it.
RETURN_MEMORY = {
    "TF_ONEDNN_USE_SYSTEM_ALLOCATOR": "1",
    "MALLOC_MMAP_THRESHOLD_": "65536",
}


def rise_mib(function: Callable[[], object]) -> float:
    """Highest resident memory during a second call, over that before it, in MiB."""
    function()
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    pathlib.Path("/proc/self/clear_refs").write_text("5")
    before = _resident("VmRSS")
    kept = function()
    highest = _resident("VmHWM")
    del kept
    return (highest - before) / 1024


def _resident(field: str) -> int:
    status = pathlib.Path("/proc/self/status").read_text()
    return int(status.split(f"{field}:")[1].split()[0])
