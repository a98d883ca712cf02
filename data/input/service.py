"""Batches that other machines prepare, with a tf.data service."""

from __future__ import annotations

import re
import socket

import tensorflow as tf

from cmt.errors import InputError

_TIMEOUT_SECONDS = 5


def distribute(dataset: tf.data.Dataset, address: str) -> tf.data.Dataset:
    """The elements of a data set, made by the workers of a service, in their order.

    The data set is sent to them, with all that it holds; `address` is the dispatcher's.

    Raises:
      InputError: the address is none, or nobody answers there; TensorFlow would
        wait without a word.
    """
    found = re.fullmatch(r"grpc://(\[[^]]+\]|[^:/?#@[\]]+):(\d+)", address)
    if not found or not 0 < int(found[2]) < 2**16:
        raise InputError(
            "data.service must be the address of the dispatcher of a tf.data service, "
            f'grpc://HOST:PORT, such as "grpc://localhost:5000"; got "{address}"'
        )
    host, port = found[1].strip("[]"), int(found[2])
    try:
        socket.create_connection((host, port), _TIMEOUT_SECONDS).close()
    except OSError as error:
        raise InputError(
            f"data.service: nobody answers at {address} ({error}); start a dispatcher "
            "there with tf.data.experimental.service.DispatchServer(DispatcherConfig("
            f"port={port})), and its workers, as docs/data.md shows; or leave "
            "data.service out"
        ) from error
    service = tf.data.experimental.service
    return dataset.apply(service.distribute(service.ShardingPolicy.DYNAMIC, address))
