"""What is wrong with a COCO panoptic data set."""
