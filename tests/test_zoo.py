"""The configs of published rows, their headers, and docs/fidelity.md."""

from __future__ import annotations

import math
import re
from unittest.mock import ANY

import pytest

from cmt import textproto
from cmt.config import load_experiment, read_header
from cmt.protos import evaluation_pb2, model_pb2
from cmt.zoo.published import COST_SIZE, NOT_IN_PAPER, PUBLISHED, RECIPE

A = "coco/ablations/table2"
MODELS = [name for name in PUBLISHED if "ablations" not in name]


def changed(a: str, b: str) -> set[str]:
    """Paths of the fields that differ between two configs, but for the name."""
    pairs = textproto.diff(load_experiment(a), load_experiment(b))
    return {path for path, _, _ in pairs} - {"name"}


@pytest.mark.parametrize("name", PUBLISHED)
def test_every_config_loads(name):
    experiment = load_experiment(name)
    assert experiment.name == name.rpartition("/")[2]
    assert experiment.model.num_classes == 133
    assert experiment.data.max_masks == experiment.model.num_centers == 128
    assert experiment.trainer.global_batch_size == 64


@pytest.mark.parametrize("name", MODELS)
def test_a_config_is_what_its_name_says(name):
    experiment = load_experiment(name)
    model, data = experiment.model, experiment.data
    size, long = re.search(r"_(\d+)(_200k)?$", name).groups()
    assert data.crop_height_pixels == data.crop_width_pixels == int(size)
    assert experiment.trainer.steps == (200_000 if long else 100_000)
    assert experiment.trainer.learning_rate.warmup_steps == 5000
    assert model.activation == (model_pb2.RELU if "relu" in name else model_pb2.GELU)
    assert model.backbone.stage4_blocks == (24 if "r104" in name else 6)
    assert model.rfn == ("rfn" in name)
    full = "cmt_deeplab" in name
    assert model.decoder.stronger == model.location.enabled == full
    rule = "CLUSTERING" if full else "CROSS_ATTENTION"
    assert model_pb2.AssignmentRule.Name(model.transformer.assignment) == rule
    evaluation = experiment.evaluation
    assert evaluation.merge == (
        evaluation_pb2.MASK_WISE if full else evaluation_pb2.PIXEL_WISE
    )
    assert evaluation.thing_confidence == pytest.approx(0.7)
    assert evaluation.stuff_confidence == pytest.approx(0.5 if full else 0.7)
    # Those of MaX-DeepLab are DeepLab2's, and grow with the area of the input.
    areas = {641: (100, 1600), 1025: (256, 4096)}
    assert (evaluation.min_thing_area_pixels, evaluation.min_stuff_area_pixels) == (
        (400, 6400) if full else areas[int(size)]
    )
    recompute = model.recompute
    kinds = [kind.name for kind, on in recompute.ListFields() if on]
    large = ["bottleneck_blocks", "axial_blocks", "transformer_layers"]
    assert kinds == (large if int(size) > 641 else [])


CLUSTERING, STRONGER = "model.transformer.assignment", "model.decoder.stronger"
LOCATION, LOSS = "model.location.enabled", "loss.pixel_loss"
# Each way to merge has its thresholds.
MERGING = {
    "evaluation.merge",
    "evaluation.stuff_confidence",
    "evaluation.min_thing_area_pixels",
    "evaluation.min_stuff_area_pixels",
}


@pytest.mark.parametrize(
    ("before", "after", "fields"),
    [
        ("coco/max_deeplab_s_gelu_641", f"{A}a_baseline", set()),
        (f"{A}a_baseline", f"{A}a_clustering", {CLUSTERING}),
        (f"{A}a_clustering", f"{A}a_contrastive", {LOSS}),
        (f"{A}a_baseline", f"{A}b_baseline", set()),
        (
            f"{A}b_baseline",
            f"{A}b_reference_masks",
            {LOCATION, "model.location.coordinate_convolution"},
        ),
        (
            f"{A}b_reference_masks",
            f"{A}b_coordinate_convolution",
            {"model.location.coordinate_convolution"},
        ),
        (f"{A}a_baseline", f"{A}c_baseline", set()),
        (f"{A}a_contrastive", f"{A}c_clustering", set()),
        (f"{A}b_coordinate_convolution", f"{A}c_location", set()),
        (f"{A}c_baseline", f"{A}c_decoder", {STRONGER}),
        (f"{A}c_clustering", f"{A}c_clustering_decoder", {STRONGER}),
        (
            f"{A}c_clustering_decoder",
            f"{A}c_clustering_location_decoder",
            {LOCATION},
        ),
        (f"{A}c_clustering_location_decoder", f"{A}d_baseline", set()),
        # The checkpoint of another pretraining is all that changes.
        (f"{A}d_baseline", f"{A}d_imagenet22k", set()),
        (f"{A}d_imagenet22k", f"{A}d_rfn", {"model.rfn"}),
        (f"{A}d_rfn", f"{A}d_mask_wise", MERGING),
        (f"{A}d_baseline", "coco/cmt_deeplab_axial_r50_641", MERGING),
        (
            "coco/max_deeplab_s_relu_641",
            "coco/max_deeplab_s_gelu_641",
            {"model.activation"},
        ),
    ],
)
def test_a_row_changes_what_its_table_says(before, after, fields):
    assert changed(before, after) == fields


class Table(dict):
    """Rows of a Markdown table, by first column, as {column: [cells]}."""

    def __init__(self, text: str, section: str):
        body = re.search(rf"^## {section}\n(.*?)(?=^## |\Z)", text, re.M | re.S)[1]
        lines = [line for line in body.splitlines() if line.startswith("| ")]
        self.columns, *rows = ([c.strip() for c in r.split("|")[1:-1]] for r in lines)
        super().__init__((row[0], row[1:]) for row in rows)


@pytest.fixture(scope="module")
def document(checkout) -> str:
    return (checkout / "docs" / "fidelity.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", PUBLISHED)
def test_headers_say_what_is_published_and_what_was_measured(name, document):
    row, entries = PUBLISHED[name], read_header(name)
    assert re.match(rf"cmt train {name}( \\)? ?--output ", entries["Command"])
    assert "64 TPU cores" in entries["Hardware"]
    if row.val_derived is not None:
        assert entries["Expected"] == f"none published ({row.val_derived.source})"
    elif row.val is None:
        assert entries["Expected"] == "none published"
    else:
        told = [
            f"PQ {quality.all:.1f}, things {quality.things:.1f},"
            f" stuff {quality.stuff:.1f} on {split}"
            for split, quality in (("val2017", row.val), ("test-dev", row.test_dev))
            if quality is not None
        ]
        assert entries["Expected"] == f"{'; '.join(told)} (paper, {row.source})"
    assert entries.get("Reading", "") == row.note
    (*_, parameters, cost) = Table(document, "Configs")[name]
    published = "none published"
    if row.parameters_millions is not None:
        millions, source = row.parameters_millions
        published = f"{millions}M in the paper, {source}"
    size = f"{parameters} parameters (measured here; {published})"
    assert entries["Size"] == size
    published = "none known"
    if row.multiply_adds_billions is not None:
        billions, source = row.multiply_adds_billions
        published = f"{billions:.0f}G at 800 x 1200: {source}"
        assert "paper" not in entries["Cost"]
    amount, _, crop = cost.partition(" at ")
    at_800 = network_row(name, document)[3]
    assert entries["Cost"] == (
        f"{amount} multiply-adds at {crop}, {at_800} multiply-adds at 800 x 1200"
        f" (measured here; {published})"
    )
    data = load_experiment(name).data
    assert crop == f"{data.crop_height_pixels} x {data.crop_width_pixels}"


def key(name: str) -> bytes:
    """The network of a config, without what does not change its outputs."""
    model = load_experiment(name).model
    model.ClearField("recompute")
    model.ClearField("precision")
    return model.SerializeToString(deterministic=True)


def network_row(name: str, document: str) -> list[str]:
    """The row of the network of a config."""
    rows = Table(document, "Networks")
    (row,) = (row for first, row in rows.items() if key(first) == key(name))
    return row


def total(name: str, document: str) -> int:
    return int(network_row(name, document)[0].replace(",", ""))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "parameters", "multiply_adds"),
    [
        ("coco/max_deeplab_s_gelu_641", 61_900_200, 290_640_656_896),
        ("coco/cmt_deeplab_axial_r50_641", 91_815_748, 393_817_223_168),
    ],
)
def test_the_code_builds_networks_of_full_size(
    name, parameters, multiply_adds, document
):
    """Without the auxiliary branch, which no count holds; the document has them too."""
    from cmt.factory import build_model
    from cmt.zoo.cost import count_multiply_adds, count_parameters

    model = load_experiment(name).model
    model.auxiliary_semantic.enabled = False
    network = build_model(model)
    network.build((None, 65, 65, 3))
    variables = network.trainable_variables
    assert sum(math.prod(variable.shape) for variable in variables) == parameters
    assert count_parameters(network) == (parameters, ANY, 0)
    assert count_multiply_adds(network, COST_SIZE) == (multiply_adds, ANY, 0)
    row = network_row(name, document)
    assert (row[0], row[3]) == (f"{parameters:,}", f"{multiply_adds / 1e9:.1f}G")


def test_the_document_has_totals_in_the_convention_of_the_paper(document):
    """What the tables imply: exactly where it was matched, stated where it was not."""
    base, decoder = (total(f"{A}c_{row}", document) for row in ("baseline", "decoder"))
    assert (base, decoder) == (61_900_200, 90_963_656)
    assert total("coco/max_deeplab_s_relu_641", document) == base
    for before, row in ((base, "clustering"), (decoder, "clustering_decoder")):
        assert 0 < total(f"{A}c_{row}", document) - before < 50_000
    r50 = total("coco/cmt_deeplab_axial_r50_1281", document)
    r104 = total("coco/cmt_deeplab_axial_r104_1281", document)
    rfn = total("coco/cmt_deeplab_axial_r104_rfn_1281", document)
    assert r104 - r50 == 40_298_688
    assert 2 * r104 - 200_000 <= rfn <= 2 * r104


@pytest.mark.parametrize(
    ("name", "billions", "tolerance"),
    [("r50", 396, 0.006), ("r104", 553, 0.006), ("r104_rfn", 1114, 0.015)],
)
def test_the_document_has_multiply_adds_near_those_published(
    name, billions, tolerance, document
):
    config = f"coco/cmt_deeplab_axial_{name}_1281"
    assert PUBLISHED[config].multiply_adds_billions == (billions, NOT_IN_PAPER)
    ours = float(network_row(config, document)[3].removesuffix("G"))
    assert ours == pytest.approx(billions, rel=tolerance)


def test_the_document_states_differences_with_a_reason(document):
    rows = Table(document, "Networks")
    assert rows.columns[2] == "paper"
    assert rows.columns[5] == "published, not in the paper"
    assert {key(name) for name in rows} == {key(name) for name in PUBLISHED}
    assert len(rows) == len({key(name) for name in PUBLISHED})
    for name, cells in rows.items():
        ours, paper, difference, cost, published_cost, cost_difference = cells
        row, millions = PUBLISHED[name], int(ours.replace(",", "")) / 1e6
        if row.parameters_millions is not None:
            assert paper == f"{row.parameters_millions.value}M"
        if row.parameters_millions is None:
            assert (paper, difference) == ("none", "none published")
        elif round(millions, 1) == row.parameters_millions.value:
            assert difference == "none: equal as rounded"
        else:
            gap = millions - row.parameters_millions.value
            assert difference == f"{gap:+.1f}M: location module, see the note"
            assert load_experiment(name).model.location.enabled
        if row.multiply_adds_billions is None:
            assert (published_cost, cost_difference) == ("none", "none known")
        else:
            billions = row.multiply_adds_billions.value
            assert published_cost == f"{billions:.0f}G"
            gap = float(cost.removesuffix("G")) - billions
            stated = float(re.match(r"([+-][\d.]+)G \(", cost_difference)[1])
            assert stated == pytest.approx(gap, abs=0.11)
            assert cost_difference.endswith("see the note")


def test_the_document_has_quality_and_recipe(document):
    for name, row in PUBLISHED.items():
        source, val, test_dev, ours, _, _ = Table(document, "Configs")[name]
        assert source == (row.source or "none")
        for text, quality in ((val, row.val), (test_dev, row.test_dev)):
            known = [f"{v:.1f}" for v in quality or ()]
            assert re.findall(r"\d+\.\d", text) == known
        assert ours == "not trained"
        assert row.note in document
        if row.val_derived is not None:
            derived = f"- `{name}`: none published; {row.val_derived.source}.\n"
            assert derived in document
    leaves = {
        path: "not set" if value is None else textproto.value_text(field, value)
        for path, field, value in textproto.leaves(
            load_experiment("coco/cmt_deeplab_axial_r50_1281")
        )
    }
    recipe = Table(document, "Recipe")
    assert list(recipe) == [setting.name for setting in RECIPE]
    for setting in RECIPE:
        published, ours, field, difference, reason = recipe[setting.name]
        assert published == (setting.published or "not said")
        assert ours == (leaves[setting.field] if setting.field else "none")
        assert setting.field in field
        assert difference in ("none", "not comparable", "nothing published")
        assert (difference == "none") == bool(setting.value)
        assert reason == setting.reason


NETWORKS = list({key(name): name for name in reversed(PUBLISHED)}.values())


@pytest.mark.slow
@pytest.mark.parametrize("name", NETWORKS)
def test_the_document_is_what_the_code_builds(name, document):
    from cmt.factory import build_model
    from cmt.zoo.cost import count_multiply_adds, count_parameters

    network = build_model(load_experiment(name).model)
    network.build((None, 65, 65, 3))
    row = network_row(name, document)
    assert f"{count_parameters(network).total:,}" == row[0]
    costs = {row[3]: COST_SIZE}
    for other in (n for n in PUBLISHED if key(n) == key(name)):
        *_, parameters, cost = Table(document, "Configs")[other]
        assert parameters == row[0]
        amount, height, width = re.fullmatch(r"(\S+) at (\d+) x (\d+)", cost).groups()
        costs[amount] = int(height), int(width)
    for amount, size in costs.items():
        assert f"{count_multiply_adds(network, size).total / 1e9:.1f}G" == amount
