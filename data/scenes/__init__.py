"""Generated data sets in COCO panoptic format."""
