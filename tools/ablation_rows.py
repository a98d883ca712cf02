"""The rows of the small-scale ablation, and the configs that follow from them.

A row is `scenes/tiny` with a few fields changed, as a row of the paper's Table 2 is
MaX-DeepLab-S or CMT-DeepLab. A textproto includes no other, so `write_configs` writes a
whole file a row; a test finds those that no longer follow from `scenes/tiny`.
"""

from __future__ import annotations

import hashlib
import json
import pathlib
import textwrap
from collections.abc import Mapping
from typing import Any, NamedTuple

from google.protobuf import text_format

from cmt import textproto
from cmt.config import diff, load_experiment, parse_experiment
from cmt.protos import experiment_pb2
from cmt.zoo.published import PUBLISHED, Quality

ROOT = pathlib.Path(__file__).resolve().parent.parent
BASE = "scenes/tiny"
FOLDER = "scenes/ablations"
CONFIGS = ROOT / "configs" / FOLDER

# Ten rows, three seeds and the search take an hour and a half of two cores: a step
# takes half as long as with the 193 x 193 pixels of the base.
STEPS = 1000
SIZE_PIXELS = 129
SEEDS = (0, 1, 2)
# Equal for all rows; what else differs from the base is in ROWS. The integers of an
# evaluation do not depend on its batch, but some results were made with one of 1.
COMMON = (
    "trainer.global_batch_size=8",
    "evaluation.batch_size=1",
    "evaluation.pixel_confidence=0.4",
    f"trainer.steps={STEPS}",
    "trainer.log_every_steps=50",
    "trainer.checkpoint_every_steps=200",
    "trainer.keep_checkpoints=1",
    f"trainer.evaluate_every_steps={STEPS // 2}",
    f"data.crop_height_pixels={SIZE_PIXELS}",
    f"data.crop_width_pixels={SIZE_PIXELS}",
)
# As docs/scenes.md has them, made once.
SCENES, TRAIN_IMAGES, VAL_IMAGES, DATA_SEED = "middle", 4000, 200, 0

_CROSS = "model.transformer.assignment=CROSS_ATTENTION"
_KMEANS = "model.transformer.assignment=KMEANS"
_INSTANCE = "loss.pixel_loss=INSTANCE_DISCRIMINATION"
_WEAK = "model.decoder.stronger=false"
_NO_LOCATION = "model.location.enabled=false"
_NO_COORDINATES = "model.location.coordinate_convolution=false"
_PIXEL_WISE = "evaluation.merge=PIXEL_WISE"


class Row(NamedTuple):
    """A row of the ablation.

    Attributes:
      name: of its config, in FOLDER.
      title: what it is, after "the cross-attention baseline" or "CMT-DeepLab".
      changes: "path=value" of what differs from the base, besides COMMON.
      before: the row that it is one step away from; "" for the baseline.
      step: what that step adds.
      paper: (before, after), rows of the paper with the same step, by their config in
        coco/ablations; None where the paper has none.
      weights: row whose weights it takes; "" if it is trained.
    """

    name: str
    title: str
    changes: tuple[str, ...]
    before: str = ""
    step: str = ""
    paper: tuple[str, str] | None = None
    weights: str = ""


_BASELINE = (_WEAK, _CROSS, _INSTANCE, _PIXEL_WISE)
ROWS = {
    row.name: row
    for row in (
        Row("baseline", "cross-attention baseline", (*_BASELINE, _NO_LOCATION)),
        Row(
            "clustering",
            "baseline + clustering update",
            (_WEAK, _INSTANCE, _NO_LOCATION, _PIXEL_WISE),
            "baseline",
            "clustering update",
            ("table2a_baseline", "table2a_clustering"),
        ),
        Row(
            "contrastive",
            "baseline + clustering update + pixel-wise contrastive loss",
            (_WEAK, _NO_LOCATION, _PIXEL_WISE),
            "clustering",
            "pixel-wise contrastive loss",
            ("table2a_clustering", "table2a_contrastive"),
        ),
        Row(
            "reference_masks",
            "baseline + reference masks",
            (*_BASELINE, _NO_COORDINATES),
            "baseline",
            "reference masks",
            ("table2b_baseline", "table2b_reference_masks"),
        ),
        Row(
            "location",
            "baseline + reference masks + coordinate convolution",
            _BASELINE,
            "reference_masks",
            "coordinate convolution",
            ("table2b_reference_masks", "table2b_coordinate_convolution"),
        ),
        Row(
            "decoder",
            "baseline + stronger decoder",
            (_CROSS, _INSTANCE, _NO_LOCATION, _PIXEL_WISE),
            "baseline",
            "stronger decoder",
            ("table2c_baseline", "table2c_decoder"),
        ),
        Row(
            "decoder_clustering",
            "baseline + stronger decoder + clustering update and contrastive loss",
            (_NO_LOCATION, _PIXEL_WISE),
            "decoder",
            "clustering update and contrastive loss, with the stronger decoder",
            ("table2c_decoder", "table2c_clustering_decoder"),
        ),
        Row(
            "decoder_location",
            "baseline + stronger decoder + location",
            (_CROSS, _INSTANCE, _PIXEL_WISE),
            "decoder",
            "location, with the stronger decoder",
        ),
        Row(
            "full",
            "CMT-DeepLab: baseline + stronger decoder + clustering + location",
            (_PIXEL_WISE,),
            "decoder_clustering",
            "location, with the stronger decoder and clustering",
            ("table2c_clustering_decoder", "table2c_clustering_location_decoder"),
        ),
        Row(
            "mask_wise",
            "CMT-DeepLab, merged mask-wise: the weights of full",
            (),
            "full",
            "mask-wise merge",
            ("table2d_rfn", "table2d_mask_wise"),
            weights="full",
        ),
        Row(
            "kmeans",
            "CMT-DeepLab with the k-means assignment of the follow-up paper",
            (_KMEANS, _PIXEL_WISE),
            "full",
            "k-means assignment",
        ),
    )
}
SEARCHED = ("baseline", "full")


class Scale(NamedTuple):
    """Size and length of the trainings of one page.

    Attributes:
      page: its name in docs/, and that of the folder in runs/.
      size_pixels: height and width of the scenes.
      steps: of a training.
      rows: names of those that are trained.
      searched_rates: `ablation.py search` tries these for the rows in SEARCHED, with
        seed 0 and all steps.
      rates: the one chosen for each of them; rows with cross-attention take the
        baseline's, rows with clustering that of full CMT.
      overrides: "path=value" that this changes in the configs of the rows.
    """

    page: str
    size_pixels: int
    steps: int
    rows: tuple[str, ...]
    searched_rates: tuple[float, ...]
    rates: Mapping[str, float]
    overrides: tuple[str, ...] = ()


# As the configs have it.
SMALL = Scale(
    "ablation",
    SIZE_PIXELS,
    STEPS,
    tuple(row.name for row in ROWS.values() if not row.weights),
    (0.003, 0.006, 0.012, 0.024),
    {"baseline": 0.012, "full": 0.006},
)
# With `--large`: some rows at the size of the demo and twice as long, where they differ
# by more than their seeds do.
LARGE = Scale(
    "ablation_large",
    193,
    2000,
    ("baseline", "decoder", "decoder_clustering", "full"),
    (0.003, 0.006, 0.012),
    {"baseline": 0.006, "full": 0.012},
    (
        "data.crop_height_pixels=193",
        "data.crop_width_pixels=193",
        "trainer.steps=2000",
        "trainer.evaluate_every_steps=1000",
    ),
)
# With `--long`: whether attention gets sparse with time, as the paper's Fig. 1 has it.
# docs/ablation_long/results_4000 has both rows after 4,000 steps of 8 images.
LONG = Scale(
    "ablation_long",
    SIZE_PIXELS,
    10000,
    ("decoder", "decoder_clustering"),
    (),
    SMALL.rates,
    (
        "trainer.steps=10000",
        "trainer.global_batch_size=4",
        "trainer.evaluate_every_steps=2500",
    ),
)


def chosen_rate(row: Row, scale: Scale = SMALL) -> float:
    """Returns the learning rate of a row."""
    return scale.rates["baseline" if _CROSS in row.changes else "full"]


def paper_quality(name: str) -> Quality:
    """Returns what the paper has for a config of coco/ablations."""
    return PUBLISHED[f"coco/ablations/{name}"].val


def row_experiment(
    row: Row, seed: int, rate: float, overrides: tuple[str, ...] = ()
) -> experiment_pb2.ExperimentConfig:
    """Returns the resolved config of one training of a row."""
    return load_experiment(
        f"{FOLDER}/{row.name}", [*overrides, *trial_settings(seed, rate)]
    )


def trial_settings(seed: int, rate: float) -> tuple[str, ...]:
    """Returns what one training of a row changes in its config."""
    return f"trainer.seed={seed}", f"trainer.learning_rate.base={rate:g}"


# Where things lie, how often is reported, which devices: no result depends on it.
_NOT_RESULTS = ("name", "data.train.", "data.validation.", "trainer.strategy.")
_NOT_RESULTS += ("data.cache_records", "data.parallel_calls", "data.prefetch_batches")
_NOT_RESULTS += ("trainer.log_", "trainer.checkpoint_", "trainer.keep_")
_NOT_RESULTS += ("trainer.evaluate_",)


def settings_of(experiment: experiment_pb2.ExperimentConfig) -> dict[str, Any]:
    """Returns the fields that a result depends on, where they are not the default."""
    changed = diff(parse_experiment("", "default.textproto"), experiment)
    return {p: new for p, _, new in changed if not p.startswith(_NOT_RESULTS)}


def digest(settings: dict[str, Any]) -> str:
    """Returns 16 hexadecimal digits that stand for settings."""
    text = json.dumps(settings, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def config_text(row: Row) -> str:
    """Returns the whole config file of a row, its header too."""
    experiment = experiment_pb2.ExperimentConfig()
    base = ROOT / "configs" / f"{BASE}.textproto"
    textproto.parse(base.read_text(encoding="utf-8"), experiment, str(base))
    rate = f"trainer.learning_rate.base={chosen_rate(row):g}"
    for change in (*COMMON, rate, *row.changes):
        textproto.assign(experiment, change)
    return _header(row) + "\n" + text_format.MessageToString(experiment)


def _header(row: Row) -> str:
    expected = "see docs/ablation.md, measured here; "
    if row.paper is None:
        expected += "the paper has no such row"
    else:
        before, after = (paper_quality(name).all for name in row.paper)
        source = PUBLISHED[f"coco/ablations/{row.paper[1]}"].source
        expected += (
            f"on COCO, at full size, this step adds {after - before:+.1f} PQ (paper,"
            f" {source})"
        )
    weights = (
        f"; the ablation takes the weights of {row.weights}" if row.weights else ""
    )
    entries = {
        "Command": f"cmt train {FOLDER}/{row.name} --output runs/{row.name}{weights}\n"
        "from the folder that holds scenes/tfrecords/ (see `cmt data scenes` and"
        " `cmt data convert`); `make ablation` trains all rows",
        "Hardware": "2 CPU cores",
        "Expected": expected,
        "Differs": f"from {BASE} in {', '.join(c for c in row.changes) or 'no field'};"
        f" equal in all rows: {', '.join(COMMON)}",
        "Written": "by `python tools/ablation.py configs`, from tools/ablation_rows.py",
    }
    lines = textwrap.wrap(f"Ablation on generated scenes: {row.title}.", 84)
    lines.append("")
    for name, text in entries.items():
        wrapped = [w for part in text.split("\n") for w in textwrap.wrap(part, 72)]
        lines.append(f"{name + ':':<11}{wrapped[0]}")
        lines += [f"{'':<11}{line}" for line in wrapped[1:]]
    return "".join(f"# {line}".rstrip() + "\n" for line in lines)


def write_configs() -> None:
    """Writes the config of every row."""
    CONFIGS.mkdir(exist_ok=True)
    for row in ROWS.values():
        path = CONFIGS / f"{row.name}.textproto"
        path.write_text(config_text(row), encoding="utf-8")
