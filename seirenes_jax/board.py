"""Event files as TensorBoard reads them: scalars, and the mark that drops what came after a resume.

Written by hand, at once and without a thread: the usual writers load torch where it is installed,
and leave the run hanging in their queue when the disk is full.
"""

import struct
import time
from collections.abc import Mapping
from pathlib import Path

WORD, BYTES, DOUBLE, FLOAT = 0, 2, 1, 5  # wire types of protocol buffers
FORMATS = {DOUBLE: "<d", FLOAT: "<f"}


def _crc_table() -> tuple[int, ...]:
    table = []
    for value in range(256):
        for _ in range(8):
            value = value >> 1 ^ (0x82F63B78 if value & 1 else 0)
        table.append(value)
    return tuple(table)


CRC_TABLE = _crc_table()


def masked_crc(data: bytes) -> bytes:
    """CRC-32C, rotated and shifted as TFRecord files want it."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc = crc >> 8 ^ CRC_TABLE[(crc ^ byte) & 0xFF]
    crc ^= 0xFFFFFFFF
    return struct.pack("<I", ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF)


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def _field(number: int, kind: int, value: int | float | bytes) -> bytes:
    key = _varint(number << 3 | kind)
    if isinstance(value, bytes):
        return key + _varint(len(value)) + value
    if kind == WORD:
        return key + _varint(int(value))
    return key + struct.pack(FORMATS[kind], value)


def record(step: int, *parts: bytes) -> bytes:
    """One event (wall_time = 1, step = 2, and its parts) in the frame of a TFRecord."""
    event = _field(1, DOUBLE, time.time()) + _field(2, WORD, step) + b"".join(parts)
    size = struct.pack("<Q", len(event))
    return size + masked_crc(size) + event + masked_crc(event)


def opening(step: int) -> bytes:
    """The first records of a file: its version, and that older scalars from `step` on are void."""
    version = _field(3, BYTES, b"brain.Event:2")
    start = _field(7, BYTES, _field(1, WORD, 1))  # session_log { status: START }
    return record(step, version) + record(step, start)


def scalars(step: int, values: Mapping[str, float]) -> bytes:
    """All scalars of a step: summary = 5 { value = 1 { tag = 1, simple_value = 2 } }."""
    pairs = (
        _field(1, BYTES, _field(1, BYTES, tag.encode("utf-8", "replace")) + _field(2, FLOAT, value))
        for tag, value in values.items()
        if abs(value) < 3e38  # what a float32 holds
    )
    return record(step, _field(5, BYTES, b"".join(pairs)))


def next_file(folder: Path) -> Path:
    """A name that TensorBoard reads after all that are there."""
    count = sum(1 for _ in folder.glob("events.out.tfevents.*"))
    return folder / f"events.out.tfevents.{int(time.time()):010d}.{count:06d}"
