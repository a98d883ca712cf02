"""The sentences of docs/ablation.md that do not depend on the results."""

from __future__ import annotations

from ablation_rows import LARGE, LONG, SMALL

from cmt.evaluation.bootstrap import LEVEL, RESAMPLES

_SMALL, _LARGE, _LONG = (
    f"{scale.size_pixels} x {scale.size_pixels} pixels and {scale.steps:,} steps"
    for scale in (SMALL, LARGE, LONG)
)
HEAD = f"""# The paper's claims at small scale

The paper's Table 2 takes 64 TPU cores. The rows below are the same steps on generated
scenes (`cmt data scenes`), with networks small enough for two CPU cores: each row is a
config in `configs/scenes/ablations/`, `scenes/tiny` with a few fields changed, which
its head names. All rows of a page are trained with the same steps, images and seeds.
`make ablation` runs them and goes on where it was stopped. `python tools/ablation.py
text` writes the pages from the raw results in the folders beside them; a test compares
the two.

There are three pages: [all rows](ablation.md) with {_SMALL};
[the rows between the baseline and full CMT](ablation_large.md) with
{_LARGE} (`--large`), the size of the demo; and
[the rows that differ in clustering](ablation_long.md) with
{_LONG} of 4 images in place of 8 (`--long`; no part of
`make ablation`), with the learning rates of the first page, for what attention becomes
with time.
"""

EMPTY = """
No results are committed yet, so this page claims nothing. What the paper says of the
steps (*paper*, COCO val2017):
"""

METHOD = f"""## How the numbers are made

PQ is computed from the IoU sums and the counts of each image, in percent, as
`cmt eval` does. *Spread* is the standard deviation over the seeds (n - 1). All rows but
`mask_wise` are merged per pixel, as `configs/coco/ablations` has it for Tables 2a to
2c; `mask_wise` is `full` evaluated a second time.

A difference is the mean over the seeds that both rows have. Its {LEVEL}% interval is a
paired bootstrap: {RESAMPLES:,} resamples, seed 0, each draws the validation images with
replacement (the same for both rows and all seeds) and the seeds with replacement (the
same for both rows); the interval lies between the percentiles {(100 - LEVEL) / 2:g} and
{(100 + LEVEL) / 2:g}. Equal seeds give equal images in equal order; first weights are
equal only where two networks have the same variables. With three seeds the resampling
understates how much seeds matter; with one it knows nothing of it.

*Reproduced* means that the interval excludes 0 and the sign is the paper's,
*contradicted* that it excludes 0 and the sign is the other, *not shown* that it holds
0; where the paper has no figure, *higher* or *lower* that it excludes 0.
Differences on scenes and on COCO are not of one size: only signs are compared.

The paper's single steps are 0.3 to 1.3 PQ. The intervals here reach 1.5 to 4 PQ to
either side, mostly because seeds differ by as much. So *not shown* says of such a step
that three seeds of this size cannot tell, not that the step does nothing.
"""
