"""Files, images, processes and progress: plumbing that knows no panoptic data."""
