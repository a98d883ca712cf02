"""Data: COCO panoptic files, TFRecords, and the input pipeline."""

import sys

from cmt.data.panoptic import categories

# Scripts of users import the classes of a data set from `cmt.data.categories`.
sys.modules[f"{__name__}.categories"] = categories
