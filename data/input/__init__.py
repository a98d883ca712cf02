"""TFRecords -> what the network gets."""
