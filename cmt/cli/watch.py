"""`cmt eval --watch`: follows a training, and evaluates its checkpoints."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from pathlib import Path

from cmt.errors import InputError

_POLL_SECONDS = 10.0

_logger = logging.getLogger(__name__)


def follow(
    run_dir: Path, overrides: Sequence[str], *, poll_seconds: float = _POLL_SECONDS
) -> None:
    """Evaluates each new checkpoint of a run, on this machine, until its last one.

    Of several new ones, the newest is next. What the training itself has evaluated
    is left as it is.

    Args:
      run_dir: of a training that may not have begun; on storage that both machines see.
      overrides: "path=value" for the evaluations, such as evaluation.batch_size=8.
      poll_seconds: between looks for a new checkpoint.

    Raises:
      InputError: the config, the data or a checkpoint cannot be used.
    """
    from cmt.config import load_experiment
    from cmt.data.input.open import Data
    from cmt.evaluation.evaluate import METRICS_FILE
    from cmt.evaluation.factory import open_evaluation
    from cmt.run_files import (
        CONFIG_FILE,
        EVALUATION_FOLDER,
        EVALUATION_PICTURE,
        LOGS_FOLDER,
    )
    from cmt.serving.factory import load_predictor
    from cmt.trainer.checkpoint import checkpoint_prefix, checkpoint_steps
    from cmt.trainer.reporting import ScalarLogs, panoptic_scores

    _wait_for(run_dir / CONFIG_FILE, poll_seconds)
    experiment = load_experiment(str(run_dir / CONFIG_FILE), overrides)
    data, logs, failed = Data(experiment.data), None, None
    last = 0
    while last < experiment.trainer.steps:
        newest = max(checkpoint_steps(run_dir), default=0)
        if newest in (last, failed):
            time.sleep(poll_seconds)
            continue
        output = run_dir / EVALUATION_FOLDER / str(newest)
        if (output / METRICS_FILE).exists():
            last = newest
            continue
        prefix = checkpoint_prefix(run_dir, newest)
        try:
            predictor, step = load_predictor(experiment, data, prefix)
        except InputError as error:
            if newest in checkpoint_steps(run_dir):
                raise
            # The training has removed it meanwhile; a newer one is there.
            _logger.warning("step %d is not evaluated: %s", newest, error)
            failed = newest
            continue
        categories = predictor.categories
        evaluation = open_evaluation(experiment, data.validation, categories)
        metrics = evaluation.run(predictor, output, step=step)
        evaluation.draw(predictor, output / EVALUATION_PICTURE)
        scores = panoptic_scores(metrics)
        logs = logs or ScalarLogs(run_dir / LOGS_FOLDER / "watch")
        logs.write(step, scores, picture=output / EVALUATION_PICTURE)
        numbers = "  ".join(f"{name} {value:.2f}" for name, value in scores.items())
        print(f"step {step} of {experiment.trainer.steps}  {numbers}", flush=True)
        last = newest


def _wait_for(path: Path, poll_seconds: float) -> None:
    if not path.exists():
        _logger.warning("waiting for %s", path)
    while not path.exists():
        time.sleep(poll_seconds)
