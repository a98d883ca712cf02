"""How the records of a run are read, and what of that goes together."""

from __future__ import annotations

from typing import NamedTuple

from cmt.errors import InputError


class Loading(NamedTuple):
    """How records are read and batches are made.

    Attributes:
      parallel_calls: images prepared at a time; 0 lets tf.data choose.
      prefetch_batches: batches made ahead.
      cache_records: read all records first and keep them, encoded, in memory.
      skip_damaged: use other records in place of damaged ones.
      snapshot_folder: where a decoded copy of the split is kept and read from; "" to
        decode each time.
      service: address of a tf.data service that prepares the batches; "" for none.
    """

    parallel_calls: int = 0
    prefetch_batches: int = 2
    cache_records: bool = False
    skip_damaged: bool = False
    snapshot_folder: str = ""
    service: str = ""

    def check(self) -> None:
        """Refuses what does not go together.

        Raises:
          InputError: records are to be kept in two ways, or in one that a service
            cannot use.
        """
        if not self.cache_records:
            return
        if self.service:
            raise InputError(
                "data.cache_records cannot be used with data.service, which would send "
                "all that is kept to its workers; set data.cache_records to false"
            )
        if self.snapshot_folder:
            raise InputError(
                "data.cache_records, which keeps encoded records, cannot be used with "
                "data.snapshot_folder, whose records are decoded; leave one of them out"
            )
