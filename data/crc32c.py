"""The checksum of TFRecord files: CRC-32C, in NumPy.

TensorFlow has it too, but importing TensorFlow into every worker process of a
conversion costs seconds and hundreds of megabytes each.
"""

from __future__ import annotations

import functools

import numpy as np

_POLYNOMIAL = 0x82F63B78  # Castagnoli, bits reversed
_LANE = 128  # bytes that one lane runs through


@functools.cache
def _table() -> np.ndarray:
    """[256] uint32: the remainder of every byte."""
    table = np.arange(256, dtype=np.uint32)
    for _ in range(8):
        table = np.where(table & 1, (table >> 1) ^ np.uint32(_POLYNOMIAL), table >> 1)
    return table.astype(np.uint32)


@functools.cache
def _lane_shift() -> list[list[int]]:
    """[4][256]: what `_LANE` zero bytes make of each byte of a remainder."""
    values = np.arange(256, dtype=np.uint32)
    shifted = [values << np.uint32(8 * place) for place in range(4)]
    table = _table()
    for _ in range(_LANE):
        shifted = [(value >> 8) ^ table[value & 0xFF] for value in shifted]
    return [value.tolist() for value in shifted]


def crc32c(data: bytes) -> int:
    """CRC-32C of `data`.

    The remainder is linear: the bytes are cut into lanes, all lanes run at the
    same time, and the remainders are chained.
    """
    table = _table()
    num_lanes = len(data) // _LANE
    head = len(data) - num_lanes * _LANE
    remainder = 0xFFFFFFFF
    for byte in data[:head]:
        remainder = (remainder >> 8) ^ int(table[(remainder ^ byte) & 0xFF])
    if num_lanes:
        lanes = np.frombuffer(data, np.uint8, offset=head).reshape(num_lanes, _LANE)
        remainders = np.zeros(num_lanes, np.uint32)
        for column in np.ascontiguousarray(lanes.T):
            remainders = (remainders >> 8) ^ table[(remainders ^ column) & 0xFF]
        first, second, third, fourth = _lane_shift()
        for lane in remainders.tolist():
            remainder = lane ^ (
                first[remainder & 0xFF]
                ^ second[remainder >> 8 & 0xFF]
                ^ third[remainder >> 16 & 0xFF]
                ^ fourth[remainder >> 24]
            )
    return remainder ^ 0xFFFFFFFF


def masked_crc32c(data: bytes) -> int:
    """The checksum as TFRecord files store it."""
    value = crc32c(data)
    return ((value >> 15 | value << 17) + 0xA282EAD8) & 0xFFFFFFFF
