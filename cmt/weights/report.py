"""What loading a checkpoint did: which variables came from it, and which did not."""

from __future__ import annotations

import dataclasses
import json

from cmt.errors import few


@dataclasses.dataclass(frozen=True)
class LoadReport:
    """The result of loading a checkpoint.

    Where shapes are named, the first is the checkpoint's, the second the network's.

    Attributes:
      checkpoint: prefix of the checkpoint.
      kind: "cmt" or "DeepLab2".
      matched: key in the checkpoint of each variable that was loaded.
      missing: variables of the network that the checkpoint lacks.
      unexpected: what the checkpoint has and the network lacks, but for counters and
        the state of optimizers.
      wrong_shape: variables of another shape, which were not loaded.
      skipped_heads: last layers for another number of classes, not loaded.
      resized_tables: relative-position tables of another length, in `matched` too.
      share: loaded part of the network's parameters, 0 to 1, with norm statistics.
      backbone_share: loaded part of the backbone's parameters, 0 to 1.
      activation: the checkpoint's and the network's where they differ, else "".
    """

    checkpoint: str
    kind: str
    matched: dict[str, str]
    missing: list[str]
    unexpected: list[str]
    wrong_shape: list[str]
    skipped_heads: list[str]
    resized_tables: list[str]
    share: float
    backbone_share: float
    activation: str = ""

    def summary_lines(self) -> list[str]:
        """Returns the report for people: counts, shares and some names."""
        lines = [
            f"initial weights from {self.checkpoint} ({self.kind}): "
            f"{len(self.matched)} variables, {percent(self.share)} of the parameters, "
            f"{percent(self.backbone_share)} of the backbone's"
        ]
        for what, names in (
            ("head of another class count, starts fresh", self.skipped_heads),
            ("of another shape, not loaded", self.wrong_shape),
            ("missing in it, start fresh", self.missing),
            ("in it and not in the network", self.unexpected),
            ("relative-position tables of another length", self.resized_tables),
        ):
            if names:
                lines.append(f"  {what}: {len(names)} ({few(names)})")
        if self.activation:
            lines.append(f"  another activation: {self.activation}")
        return lines

    def to_json(self) -> str:
        """Returns the whole report as json."""
        return json.dumps(dataclasses.asdict(self), indent=2) + "\n"


def percent(share: float) -> str:
    """Formats a share, rounded down, so that 100% means everything."""
    return f"{int(share * 1000) / 10:g}%"
