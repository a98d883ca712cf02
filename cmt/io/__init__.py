"""Files, processes and progress: plumbing that knows nothing of panoptic data."""
