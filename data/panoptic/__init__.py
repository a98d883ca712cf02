"""The COCO panoptic format: what its files hold, read leniently."""
