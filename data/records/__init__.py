"""TFRecord shards: their manifest, and reading any record at its place."""
