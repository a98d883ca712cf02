"""Labels: one number for the class and the instance of a pixel, or of a segment."""

from __future__ import annotations

# A label is class * LABEL_DIVISOR + instance, in 16 bits; class 0 is void.
LABEL_DIVISOR = 256
MAX_LABEL_PART = LABEL_DIVISOR - 1
# The id of a predicted segment is category id * CATEGORY_DIVISOR + instance.
CATEGORY_DIVISOR = 1000
