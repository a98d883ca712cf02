"""Panoptic predictions: scoring, files, pictures."""
