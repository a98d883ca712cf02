"""The last section of docs/fidelity.md: what was seen to hold, and what was not."""

from __future__ import annotations

SEEN = """## What was seen to hold

Tests of `make test`, `make check` and `make test-all` show the following. Those that
need reference data are skipped where it is missing, and say so.

- Each equation and each loss term equals a NumPy loop. The losses with their
  gradients, matching, blocks, attention, both ways of merging masks, PQ and the
  conversion of labels equal reference outputs of the public predecessor code.
- Without its three additions the network is MaX-DeepLab-S: it has 61,900,200
  parameters (paper: 61.9M), and from small reference checkpoints (the backbone alone,
  and the whole network) it gives the same outputs.
- Every layer builds, runs eagerly, traced and in bfloat16, and composed layers run
  under XLA; each is saved and made again and gives dense gradients to all its
  variables. Recomputation changes no number.
- The in-graph matching is optimal on 22,320 random and adversarial matrices.
- The real training step (network, loss, matching, both optimizers, guard) lowers to
  HLO without host calls, shapes that depend on values, or float64.
- A served SavedModel gives the evaluator's integers. A continued run gets the batches
  of a run that was never stopped. A conversion that was killed ten times ends with the
  same bytes.
- *Measured here* on two CPU cores (Intel Xeon, two threads of one core) on 2026-11-30,
  seed 0: `make demo` in a clone: 2,300 training steps of 4 images, PQ 69.6 (95%
  interval over images 67.9 to 71.2; things 52.7, stuff 94.9) on 200 scenes that it was
  not trained on; 200 of 200 served maps equalled the evaluator's. At the last layer the
  mean of a matched center's reference points explained the centroid of its mask with R2
  0.89 in h and 0.88 in w, the mask approximation loss was 0.100 (`python
  tools/look_inside.py demo/run`). The picture of the README is of this run. Without the
  installation it took 14.1 minutes, and 12.3 in the hour before: the machine trained
  13.7 and 16.5 images/s. Of an earlier commit, which had PQ 70.6, three runs took 11.4,
  12.6 and 13.0 minutes. Trained outside the demo, 2,150 steps gave 65.1, 2,600 70.8;
  small changes of a training move its PQ by as much as 3.
- *Measured here* on 2026-11-22, with the code of that day: `cmt train
  coco/overfit_samples` learned 14 real COCO images by heart in 8 minutes: PQ 65.4
  (things 51.6, stuff 82.6) on these 14.

## What was not seen

- No network of the paper's size was trained, and no PQ on COCO is claimed. The 641 x
  641 forward pass of the full network runs.
- Nothing ran on a TPU or a GPU. `MIRRORED` ran on two logical CPUs,
  `MULTI_WORKER_MIRRORED` in two processes of one machine.
- No checkpoint that DeepLab2 publishes was at hand: its names and shapes are known
  from small ones that its code wrote.
- No TensorFlow Serving binary was run: plain TensorFlow loaded the SavedModel in a new
  process and called it.
- Cityscapes, ADE20K, Dataflow and `gs://` paths: imitations and other schemes alone.
"""
