"""Merging masks against a NumPy loop, with another prime on every axis."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from cmt.outputs import Predictions
from cmt.postprocess import merge_masks


def softmax(logits):
    exponentials = np.exp(logits - logits.max())
    return exponentials / exponentials.sum()


def upsample(logits, size):
    """Bilinear, align-corners: [h, w, N] -> [H, W, N]."""
    result = np.zeros([*size, logits.shape[2]])
    for i in range(size[0]):
        for j in range(size[1]):
            y = i * (logits.shape[0] - 1) / (size[0] - 1)
            x = j * (logits.shape[1] - 1) / (size[1] - 1)
            for row in range(logits.shape[0]):
                for column in range(logits.shape[1]):
                    weight = max(0, 1 - abs(y - row)) * max(0, 1 - abs(x - column))
                    result[i, j] += weight * logits[row, column]
    return result


class Oracle:
    """One image in float64, with the smallest distance of any value to a threshold."""

    def __init__(self, mask_logits, class_logits, is_thing, size, valid, options):
        self.mask_logits, self.size, self.valid = mask_logits, size, valid
        self.options, self.margin = options, np.inf
        self.num_centers = len(class_logits)
        self.logits = upsample(mask_logits, size)
        probs = [softmax(logits)[:-1] for logits in class_logits]
        self.confidence = [max(p) for p in probs]
        self.classes = [int(p.argmax()) + 1 for p in probs]
        self.thing = [is_thing[c - 1] for c in self.classes]
        self.live = []
        for thing, confidence in zip(self.thing, self.confidence, strict=True):
            kind = "thing" if thing else "stuff"
            self.live.append(self.above(confidence, options[f"{kind}_confidence"]))
        self.owner = np.full(size, -1)
        self.score = np.zeros(self.num_centers)
        self.instance = np.arange(self.num_centers) + 1

    def above(self, value, threshold):
        self.margin = min(self.margin, abs(value - threshold))
        return value > threshold

    def places(self):
        return [(i, j) for i in range(self.size[0]) for j in range(self.size[1])]

    def mask_wise(self):
        options, pixel_confidence = self.options, self.options["pixel_confidence"]
        probs = np.apply_along_axis(softmax, -1, self.mask_logits)
        for n in range(self.num_centers):
            own = [p for p in probs[..., n].flat if self.above(p, pixel_confidence)]
            mean = sum(own) / len(own) if own else 0.0
            self.score[n] = self.confidence[n] ** options["class_power"]
            self.score[n] *= mean ** options["mask_power"]
        order = sorted(range(self.num_centers), key=lambda n: (-self.score[n], n))
        for rank, n in enumerate(order):
            self.instance[n] = rank + 1
            if not self.live[n]:
                continue
            mask = [
                place
                for place in self.places()
                if self.above(softmax(self.logits[place])[n], pixel_confidence)
            ]
            free = [place for place in mask if self.owner[place] < 0]
            if mask and len(free) > options["free_share"] * len(mask):
                for place in free:
                    self.owner[place] = n
        self.clear_padding()

    def pixel_wise(self):
        kept = np.flatnonzero(self.live)
        best = np.zeros(self.size)
        for place in self.places() if len(kept) else ():
            probs = softmax(self.logits[place][kept])
            best[place] = probs.max()
            confident = self.above(probs.max(), self.options["pixel_confidence"])
            won_by_live = self.logits[place][kept].max() >= self.logits[place].max()
            if confident and won_by_live:
                self.owner[place] = kept[probs.argmax()]
        self.clear_padding()
        for n in set(self.owner.flat) - {-1}:
            self.score[n] = self.confidence[n] * best[self.owner == n].mean()

    def clear_padding(self):
        for i, j in self.places():
            if i >= self.valid[0] or j >= self.valid[1]:
                self.owner[i, j] = -1

    def segments(self):
        """The panoptic map and the score of each of its values."""
        panoptic, members = np.zeros(self.size, int), {}
        for place in self.places():
            n = self.owner[place]
            if n >= 0:
                instance = self.instance[n] if self.thing[n] else 0
                panoptic[place] = self.classes[n] * 256 + instance
                members.setdefault(int(panoptic[place]), set()).add(n)
        scores = {}
        for value, centers in members.items():
            kind = "thing" if self.thing[min(centers)] else "stuff"
            if (panoptic == value).sum() < self.options[f"min_{kind}_area_pixels"]:
                panoptic[panoptic == value] = 0
            else:
                scores[value] = max(self.score[n] for n in centers)
        return panoptic, scores


@pytest.mark.parametrize("merge", ["MASK_WISE", "PIXEL_WISE"])
@pytest.mark.parametrize("seed", range(3))
def test_merge_equals_a_loop(merge, seed):
    batch, height, width, num_centers, num_classes = 2, 5, 7, 11, 3
    size, is_thing = (13, 19), [True, False, False]
    options = {
        "thing_confidence": 0.6,
        "stuff_confidence": 0.5,
        "pixel_confidence": 0.4,
        "free_share": 0.3,
        "class_power": 1.5,
        "mask_power": 0.5,
        "min_thing_area_pixels": 5,
        "min_stuff_area_pixels": 17,
    }
    rng = np.random.default_rng(seed)
    mask_logits = 3 * rng.normal(size=[batch, height, width, num_centers])
    class_logits = 3 * rng.normal(size=[batch, num_centers, num_classes + 1])
    mask_logits, class_logits = np.float32(mask_logits), np.float32(class_logits)
    valid_sizes = [[11, 19], [13, 17]]
    result = merge_masks(
        Predictions(mask_logits, class_logits, None, None, ()),
        is_thing=is_thing,
        output_size=size,
        merge=merge,
        valid_sizes=tf.constant(valid_sizes),
        **options,
    )
    some = 0
    for b in range(batch):
        oracle = Oracle(
            np.float64(mask_logits[b]),
            np.float64(class_logits[b]),
            is_thing,
            size,
            valid_sizes[b],
            options,
        )
        oracle.mask_wise() if merge == "MASK_WISE" else oracle.pixel_wise()
        panoptic, scores = oracle.segments()
        assert oracle.margin > 1e-6, "choose a seed without ties"
        np.testing.assert_array_equal(result.panoptic[b], panoptic)
        num_segments = len(scores)
        ids, got = result.segment_ids[b].numpy(), result.scores[b].numpy()
        assert not ids[num_segments:].any()
        assert not got[num_segments:].any()
        found = dict(zip(ids[:num_segments].tolist(), got.tolist(), strict=False))
        assert found == pytest.approx(scores, abs=1e-5)
        some += len(scores)
    assert some >= 3
