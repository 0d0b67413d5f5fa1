"""JSON and arrays as one run of bytes with a digest, and back.

Checkpoints and exchanges between processes are made of it.
"""

import hashlib
import json
import math
from collections.abc import Mapping
from typing import Any

import numpy as np

DIGEST = 32
LENGTH = 8


def packed(head: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> bytes:
    """Everything in one, so that all of it shares one fate."""
    for name, x in arrays.items():
        if x.dtype.hasobject or np.dtype(x.dtype.name) != x.dtype:
            raise TypeError(f"array {name}: got dtype {x.dtype}; wanted plain native numbers")
    kinds = [[name, x.dtype.name, list(x.shape)] for name, x in arrays.items()]
    text = json.dumps({**head, "arrays": kinds}).encode()
    raw = [x.tobytes() for x in arrays.values()]
    body = b"".join([len(text).to_bytes(LENGTH, "little"), text, *raw])
    return hashlib.sha256(body).digest() + body


def unpacked(data: bytes) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """What `packed` was given; ValueError where it is not what was packed."""
    digest, body = data[:DIGEST], data[DIGEST:]
    if hashlib.sha256(body).digest() != digest:
        raise ValueError("the record is not what was packed")
    at = LENGTH + int.from_bytes(body[:LENGTH], "little")
    head: dict[str, Any] = json.loads(body[LENGTH:at])
    arrays = {}
    for name, dtype, shape in head.pop("arrays"):
        count = math.prod(shape)
        flat = np.frombuffer(body, np.dtype(dtype), count=count, offset=at)
        arrays[name] = flat.reshape(shape).copy()
        at += flat.nbytes
    return head, arrays
