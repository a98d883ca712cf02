"""Names of the files and folders of a run directory, which `cmt train` writes."""

from __future__ import annotations

CONFIG_FILE = "config.textproto"  # the resolved config
CATEGORIES_FILE = "categories.json"  # the classes, in order
WEIGHTS_FILE = "initial_weights.json"  # which first weights came from a checkpoint
METRICS_FILE = "metrics.jsonl"  # the numbers of each log step
CHECKPOINTS_FOLDER = "checkpoints"
LOGS_FOLDER = "logs"  # for TensorBoard
EVALUATION_FOLDER = "eval"  # a folder for each evaluated step
EVALUATION_PICTURE = "clustering.png"  # in each: images, truth, prediction, clusters
