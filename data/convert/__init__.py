"""COCO panoptic data -> TFRecord shards and a manifest."""
