"""The checksum of TFRecord files: CRC-32C, in NumPy.

TensorFlow has it too, but importing TensorFlow into every worker process of a
conversion costs seconds and hundreds of megabytes each.
"""

from __future__ import annotations

import functools

import numpy as np

_POLYNOMIAL = 0x82F63B78  # Castagnoli, bits reversed
_LANE = 32  # bytes that one lane runs through, two at a time


@functools.cache
def _byte_table() -> np.ndarray:
    """[256] uint32: the remainder of every byte."""
    table = np.arange(256, dtype=np.uint32)
    for _ in range(8):
        table = np.where(table & 1, (table >> 1) ^ np.uint32(_POLYNOMIAL), table >> 1)
    return table.astype(np.uint32)


@functools.cache
def _pair_table() -> np.ndarray:
    """[65536] uint32: the remainder of every two bytes, the first one lowest."""
    table = np.arange(65536, dtype=np.uint32)
    for _ in range(2):
        table = (table >> 8) ^ _byte_table()[table & 0xFF]
    return table


@functools.cache
def _shift_tables(doublings: int) -> np.ndarray:
    """[4, 256] uint32: what `_LANE << doublings` zero bytes make of each byte."""
    if doublings:
        return _shift(_shift_tables(doublings - 1), doublings - 1)
    table = np.arange(256, dtype=np.uint32) << np.uint32([[0], [8], [16], [24]])
    for _ in range(_LANE):
        table = (table >> 8) ^ _byte_table()[table & 0xFF]
    return table


def _shift(remainders: np.ndarray, doublings: int) -> np.ndarray:
    """The remainders after `_LANE << doublings` more zero bytes."""
    first, second, third, fourth = _shift_tables(doublings)
    return (
        first[remainders & 0xFF]
        ^ second[remainders >> 8 & 0xFF]
        ^ third[remainders >> 16 & 0xFF]
        ^ fourth[remainders >> 24]
    )


def crc32c(data: bytes) -> int:
    """CRC-32C of `data`.

    The remainder is linear: the bytes are cut into lanes, all lanes run at the same
    time, and neighbours are joined until one is left. Zeros in front change nothing
    once the start value, all ones, is added to the first four bytes.
    """
    if len(data) < 2 * _LANE:
        remainder = 0xFFFFFFFF
        for byte in data:
            remainder = (remainder >> 8) ^ int(_byte_table()[(remainder ^ byte) & 0xFF])
        return remainder ^ 0xFFFFFFFF
    num_lanes = -(-len(data) // _LANE)
    padded = np.zeros(num_lanes * _LANE, np.uint8)
    padded[-len(data) :] = np.frombuffer(data, np.uint8)
    start = len(padded) - len(data)
    padded[start : start + 4] ^= 0xFF
    pairs = padded.view("<u2").reshape(num_lanes, _LANE // 2)
    remainders = np.zeros(num_lanes, np.uint32)
    for column in np.ascontiguousarray(pairs.T):
        remainders = (remainders >> 16) ^ _pair_table()[(remainders ^ column) & 0xFFFF]
    doublings = 0
    while len(remainders) > 1:
        if len(remainders) % 2:
            remainders = np.concatenate([np.zeros(1, np.uint32), remainders])
        remainders = _shift(remainders[::2], doublings) ^ remainders[1::2]
        doublings += 1
    return int(remainders[0]) ^ 0xFFFFFFFF


def masked_crc32c(data: bytes) -> int:
    """The checksum as TFRecord files store it."""
    value = crc32c(data)
    return ((value >> 15 | value << 17) + 0xA282EAD8) & 0xFFFFFFFF
