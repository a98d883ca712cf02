"""From a trained network to predictions: of files, and as a SavedModel to serve."""
