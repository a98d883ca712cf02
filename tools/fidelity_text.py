"""The texts that tools/fidelity.py writes: its document and the headers of configs."""

from __future__ import annotations

import functools
import textwrap
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from fidelity_seen import SEEN

from cmt import textproto
from cmt.config import load_experiment
from cmt.zoo.cost import Count
from cmt.zoo.published import (
    COST_SIZE,
    MAX_DEEPLAB_S,
    PUBLISHED,
    RECIPE,
    Published,
    Quality,
    Setting,
)

RECIPE_CONFIG = "coco/cmt_deeplab_axial_r50_1281"
BY_PART = {
    "MaX-DeepLab-S": "coco/max_deeplab_s_gelu_641",
    "CMT-DeepLab Axial-R50": "coco/cmt_deeplab_axial_r50_641",
    "CMT-DeepLab Axial-R104": "coco/cmt_deeplab_axial_r104_641",
}

LOCATION = "location module, see the note"
Size = tuple[int, int]

# What a row of Table 2c, or a network of Table 1, has that another has not.
_ABLATION = "coco/ablations/table2c_"
ADDITIONS = (
    ("clustering update", f"{_ABLATION}clustering", f"{_ABLATION}baseline"),
    (
        "clustering update, stronger decoder",
        f"{_ABLATION}clustering_decoder",
        f"{_ABLATION}decoder",
    ),
    ("stronger decoder", f"{_ABLATION}decoder", f"{_ABLATION}baseline"),
    ("location", f"{_ABLATION}location", f"{_ABLATION}baseline"),
    (
        "location, stronger decoder",
        f"{_ABLATION}clustering_location_decoder",
        f"{_ABLATION}clustering_decoder",
    ),
    (
        "Axial-R104",
        "coco/cmt_deeplab_axial_r104_1281",
        "coco/cmt_deeplab_axial_r50_1281",
    ),
    ("RFN", "coco/cmt_deeplab_axial_r104_rfn_1281", "coco/cmt_deeplab_axial_r104_1281"),
)


class Measured(NamedTuple):
    """A network, counted: parameters, and multiply-adds by size of the image."""

    parameters: Count
    multiply_adds: dict[Size, Count]


def crop(name: str) -> Size:
    """Returns height and width of what the network of a config sees, in pixels."""
    data = load_experiment(name).data
    return data.crop_height_pixels, data.crop_width_pixels


def quality_text(quality: Quality | None) -> str:
    """Returns "53.0 (57.7, 45.9)": all, then things and stuff."""
    if quality is None:
        return "none"
    return f"{quality.all:.1f} ({quality.things:.1f}, {quality.stuff:.1f})"


def giga(count: int) -> str:
    """Returns a count in billions, "395.3G"."""
    return f"{count / 1e9:.1f}G"


def size_text(size: Size) -> str:
    """Returns "800 x 1200"."""
    return f"{size[0]} x {size[1]}"


def parameter_difference(ours: int, row: Published) -> tuple[str, str]:
    """Returns (difference, reason) of our parameters from the published ones."""
    if row.parameters_millions is None:
        return "", "none published"
    paper = row.parameters_millions.value
    if round(ours / 1e6, 1) == paper:
        return "none", "equal as rounded"
    return f"{ours / 1e6 - paper:+.1f}M", LOCATION


def cost_difference(ours: int, row: Published) -> tuple[str, str]:
    """Returns (difference, reason) of our multiply-adds from the published ones."""
    if row.multiply_adds_billions is None:
        return "", "none known"
    published = row.multiply_adds_billions.value
    share = ours / 1e9 / published - 1
    return f"{ours / 1e9 - published:+.1f}G ({share:+.2%})", "see the note"


def parameters_text(row: Published) -> str:
    """Returns the published parameters, "94.9M"."""
    found = row.parameters_millions
    return "none" if found is None else f"{found.value}M"


def cost_text(row: Published) -> str:
    """Returns the published multiply-adds, "396G"."""
    found = row.multiply_adds_billions
    return "none" if found is None else f"{found.value:.0f}G"


def table(columns: Iterable[str], rows: Iterable[Iterable[str]]) -> Iterator[str]:
    """Yields the lines of a table in Markdown."""
    columns = list(columns)
    yield f"| {' | '.join(columns)} |"
    yield f"|{'---|' * len(columns)}"
    yield from (f"| {' | '.join(row)} |" for row in rows)
    yield ""


def network_rows(counted: dict[str, Measured]) -> Iterator[list[str]]:
    """Yields a row for each network: ours, what is published, the difference."""
    firsts: dict[int, str] = {}
    for name, measured in counted.items():
        firsts.setdefault(id(measured), name)
    for name in firsts.values():
        row, measured = PUBLISHED[name], counted[name]
        ours = measured.parameters.total
        cost = measured.multiply_adds[COST_SIZE].total
        yield [
            name,
            f"{ours:,}",
            parameters_text(row),
            ": ".join(filter(None, parameter_difference(ours, row))),
            giga(cost),
            cost_text(row),
            ": ".join(filter(None, cost_difference(cost, row))),
        ]


def config_rows(counted: dict[str, Measured]) -> Iterator[list[str]]:
    """Yields a row for each config: the quality that is published, what it costs."""
    for name, row in PUBLISHED.items():
        measured = counted[name]
        yield [
            name,
            row.source or "none",
            quality_text(row.val),
            quality_text(row.test_dev),
            "not trained",
            f"{measured.parameters.total:,}",
            f"{giga(measured.multiply_adds[crop(name)].total)}"
            f" at {size_text(crop(name))}",
        ]


def addition_rows(counted: dict[str, Measured]) -> Iterator[list[str]]:
    """Yields a row for each addition: parameters here, by the paper, difference."""
    for label, larger, smaller in ADDITIONS:
        ours, paper = (
            counted[larger].parameters.total - counted[smaller].parameters.total,
            PUBLISHED[larger].parameters_millions.value
            - PUBLISHED[smaller].parameters_millions.value,
        )
        difference = ours / 1e6 - paper
        # Each published figure is rounded to 0.1M, so their difference is to 0.1M.
        equal = abs(difference) < 0.1
        yield [
            label,
            f"{ours:+,}",
            f"{paper:+.1f}M",
            "none: equal as rounded" if equal else f"{difference:+.1f}M: {LOCATION}",
        ]


def part_rows(counted: dict[str, Measured]) -> Iterator[list[str]]:
    """Yields a row for each part: parameters, then multiply-adds at COST_SIZE."""
    shown = [counted[name] for name in BY_PART.values()]
    parts = [m.parameters.by_part for m in shown]
    costs = [m.multiply_adds[COST_SIZE].by_part for m in shown]
    for part in parts[0]:
        yield [
            part.replace("_", " "),
            *(f"{by_part.get(part, 0):,}" for by_part in parts),
            *(f"{by_part.get(part, 0) / 1e9:.3f}G" for by_part in costs),
        ]
    yield [
        "total",
        *(f"{m.parameters.total:,}" for m in shown),
        *(f"{m.multiply_adds[COST_SIZE].total / 1e9:.3f}G" for m in shown),
    ]


def recipe_row(setting: Setting) -> list[str]:
    """Returns the row of a hyperparameter: the paper's, ours, difference, reason."""
    ours = field_text(RECIPE_CONFIG, setting.field) if setting.field else "none"
    if setting.value:
        difference = "none" if ours == setting.value else "DIFFERENT"
    else:
        difference = "not comparable" if setting.published else "nothing published"
    field = f"`{setting.field}`" if setting.field else "none"
    published = setting.published or "not said"
    return [setting.name, published, ours, field, difference, setting.reason]


@functools.cache
def leaves(name: str) -> dict[str, Any]:
    """Returns (field, value) of every leaf of a config, by path."""
    return {p: (f, v) for p, f, v in textproto.leaves(load_experiment(name))}


def field_text(name: str, path: str) -> str:
    """Returns a field of a config as a config would write it."""
    field, value = leaves(name)[path]
    return "not set" if value is None else textproto.value_text(field, value)


def header(name: str, measured: Measured) -> str:
    """Returns the lines of a config's header that hold figures."""
    row, size = PUBLISHED[name], crop(name)
    parameters, billions = row.parameters_millions, row.multiply_adds_billions
    size_published, cost_published = "none published", "none known"
    if parameters is not None:
        size_published = f"{parameters_text(row)} in the paper, {parameters.source}"
    if billions is not None:
        at = size_text(COST_SIZE)
        cost_published = f"{cost_text(row)} at {at}: {billions.source}"
    cost = [
        f"{giga(measured.multiply_adds[s].total)} multiply-adds at {size_text(s)}"
        for s in (size, COST_SIZE)
    ]
    entries = {
        "Expected": published_text(row),
        "Reading": row.note,
        "Size": f"{measured.parameters.total:,} parameters (measured here;"
        f" {size_published})",
        "Cost": f"{', '.join(cost)} (measured here; {cost_published})",
    }
    return "".join(
        textwrap.fill(
            text,
            width=88,
            initial_indent=f"# {label + ':':11}",
            subsequent_indent="#" + " " * 12,
            break_on_hyphens=False,
        )
        + "\n"
        for label, text in entries.items()
        if text
    )


def published_text(row: Published) -> str:
    """Returns the quality of a row in words."""
    if row.val_derived is not None:
        return f"none published ({row.val_derived.source})"
    if row.val is None:
        return "none published"
    told = []
    for split, quality in (("val2017", row.val), ("test-dev", row.test_dev)):
        if quality is None:
            continue
        told.append(
            f"PQ {quality.all:.1f}, things {quality.things:.1f},"
            f" stuff {quality.stuff:.1f} on {split}"
        )
    return f"{'; '.join(told)} (paper, {row.source})"


TOP = """# Published figures, and ours

Written by `python tools/fidelity.py`, which builds every network of `configs/coco`
and counts; do not edit. *Paper* is Yu et al., CVPR 2022, Tables 1 to 3, as
`cmt/zoo/published.py` holds them. *Published, not in the paper* are multiply-adds of
three networks: published figures that are not in the CVPR text. All else is *measured
here*. The counts are exact, whatever the machine.
`cmt model summary CONFIG --size 800x1200` prints one by part.

Parameters are trainable ones; multiply-adds are those of convolutions and matrix
products of one image's forward pass, read from the traced graph; table look-ups and
resizes are not counted. Neither holds the auxiliary semantic branch, which only
training uses ({semantic:,} parameters, twice that with RFN).
"""

REASONS = """- **Location module.** By the tables of the paper it has 3.6M parameters on
  MaX-DeepLab-S and 3.9M on the stronger decoder. Its text describes an MLP for the
  reference masks and two coordinate convolutions a layer. If a layer's share does not
  depend on its width, the tables bound it to 0.12M to 0.22M; ours is 0.14M, because the
  coordinates enter the convolutions that are there without location too (the input
  projections), and the MLP has two hidden layers of 256. The tables then leave some 3M
  that no layer repeats; no natural design was found that has them, and widths were not
  tuned to. Every network with location is smaller than the paper's by this, a recursive
  one by twice as much. Convolutions of their own for the coordinates, as earlier
  versions had them, were 0.27M a layer and learned nothing of location.
- **Multiply-adds.** Those of three networks at 800 x 1200, in whole G, are published
  figures, not in the CVPR text; how they were counted is not known. Ours of Axial-R50
  and Axial-R104 are 0.4% to 0.6% lower; separate coordinate convolutions would be two
  thirds of that gap.
- **RFN.** Its published multiply-adds are 8G above twice those of Axial-R104; the paper
  describes an average between the passes, which has no products. Ours are twice those
  of Axial-R104; they count the heads of the first pass, which inference leaves out.
"""

QUALITY = """No network of this size was trained here, so that no PQ on COCO is claimed:
64 TPU cores and the authors' ImageNet-22K weights were not to be had. That is the
reason of every *not trained*. PQ in percent: all (things, stuff); *none* where the
paper has none. Table 1 also has MaX-DeepLab-S at {val} on val and
{test_dev} on test-dev, 61.9M parameters, and does not say its input size and
iterations: no config is sure to be it.
"""


def notes() -> Iterator[str]:
    """Yields each note on how rows were read, with the configs it is of."""
    for name, row in PUBLISHED.items():
        if row.val_derived is not None:
            yield f"- `{name}`: none published; {row.val_derived.source}."
    texts = dict.fromkeys(row.note for row in PUBLISHED.values() if row.note)
    for text in texts:
        names = [f"`{name}`" for name, row in PUBLISHED.items() if row.note == text]
        yield f"- {', '.join(names)}: {text}"


def document(counted: dict[str, Measured]) -> str:
    """Returns the text of docs/fidelity.md.

    Args:
      counted: by config; one object for all configs of a network.
    """
    size = size_text(COST_SIZE)
    cost = f"multiply-adds at {size}"
    networks_table = table(
        [
            "network of",
            "parameters",
            "paper",
            "difference",
            cost,
            "published, not in the paper",
            "difference",
        ],
        network_rows(counted),
    )
    quality = ["config", "source", "PQ val, paper", "PQ test-dev, paper", "ours"]
    recipe = ["hyperparameter", "paper", "ours", "field", "difference", "reason"]
    lines = [
        TOP.format(semantic=counted[RECIPE_CONFIG].parameters.not_counted),
        "## Networks\n",
        *networks_table,
        REASONS,
        "## What each addition costs in parameters\n",
        *table(["addition", "ours", "paper", "difference"], addition_rows(counted)),
        f"## By part\n\nParameters, then {cost}.\n",
        *table(["part", *BY_PART, *BY_PART], part_rows(counted)),
        "## Configs\n",
        QUALITY.format(
            val=quality_text(MAX_DEEPLAB_S.val),
            test_dev=quality_text(MAX_DEEPLAB_S.test_dev),
        ),
        *table(
            [*quality, "parameters", "multiply-adds at its crop"],
            config_rows(counted),
        ),
        "How rows were read where the paper leaves it open:\n",
        *notes(),
        f"\n## Recipe\n\nOf `{RECIPE_CONFIG}`; other configs say what they change.\n",
        *table(recipe, map(recipe_row, RECIPE)),
        SEEN,
    ]
    return "\n".join(lines).rstrip() + "\n"
