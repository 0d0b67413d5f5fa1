"""Frames between the judge and its workers: a 4-byte big-endian length, then JSON."""

import json
import os
import struct

_LENGTH = struct.Struct(">I")
LENGTH_BYTES = _LENGTH.size

Case = tuple[str, str, bool, str | None]  # gold, response, prose fallback, absolute tolerance


def pack(number: int) -> bytes:
    """A length, or the index of the case under way."""
    return _LENGTH.pack(number)


def unpack(data: bytes) -> int:
    """What `pack` packed."""
    return int(_LENGTH.unpack(data)[0])


def frame(message: object) -> bytes:
    """One message as it goes over a pipe. ASCII, so that lone surrogates of broken text survive."""
    body = json.dumps(message).encode("ascii")
    return _LENGTH.pack(len(body)) + body


def write_all(fd: int, data: bytes) -> None:
    """Write all of it, however small the pipe."""
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]
