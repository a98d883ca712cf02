"""Data: COCO panoptic files, TFRecords, and the input pipeline."""
