"""Labels: one number for the class and the instance of a pixel, or of a segment."""

from __future__ import annotations

import numpy as np

# A label is class * LABEL_DIVISOR + instance, in 16 bits; class 0 is void.
LABEL_DIVISOR = 256
MAX_LABEL_PART = LABEL_DIVISOR - 1
# The id of a predicted segment is category id * CATEGORY_DIVISOR + instance.
CATEGORY_DIVISOR = 1000


def count_values(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Counts integers as `np.unique` does, faster where neighbours are often equal.

    Returns:
      The values that occur, ascending, and int64 how often.
    """
    flat = values.reshape(-1)
    if not flat.size:
        return flat, np.zeros(0, np.int64)
    starts = np.concatenate([[0], np.flatnonzero(flat[1:] != flat[:-1]) + 1])
    lengths = np.diff(starts, append=flat.size)
    unique, run_of = np.unique(flat[starts], return_inverse=True)
    return unique, np.bincount(run_of, weights=lengths).astype(np.int64)
