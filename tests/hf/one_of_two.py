"""python -m tests.hf.one_of_two PROCESS PORT FOLDER OUT: a process that holds half of a model.

It imports its half, exports with the other process, and prints how many bytes it read.
"""

import json
import sys

import jax

from seirenes_jax import hf, knobs
from seirenes_jax.sharding import make_mesh
from seirenes_jax.store import at
from seirenes_jax.text import load_tokenizer
from tests.hf import made


def main(process: str, port: str, folder: str, out: str) -> None:
    jax.distributed.initialize(f"localhost:{port}", 2, int(process))
    assert jax.device_count() == 2 and jax.local_device_count() == 1
    read = 0
    rows = hf.WeightFiles.rows

    def counted(self: hf.WeightFiles, name: str, start: int, stop: int) -> object:
        nonlocal read
        found = rows(self, name, start, stop)
        read += found.nbytes
        return found

    hf.WeightFiles.rows = counted  # type: ignore[method-assign,assignment]
    config = hf.read_config(folder, **made.FLOAT32)
    sizes = {"data": 1, "fsdp": 1, "tensor": 2, "expert": 1, "sequence": 1}
    params = hf.load(folder, config, made.abstract(config, make_mesh(knobs.Mesh(**sizes))))
    assert not params["embed"].is_fully_addressable
    with hf.local_copy(at(folder)) as small_files:
        tokenizer = load_tokenizer(small_files)
    hf.export(params, config, out, tokenizer=tokenizer, dtype="bfloat16", shard_bytes=40_000)
    # Another, that each process has for itself.
    own = made.random_params(config)
    hf.export(own, config, f"{out}-of-{process}", tokenizer=tokenizer, dtype="bfloat16")
    print(json.dumps({"read": read}))
    jax.distributed.shutdown()


if __name__ == "__main__":
    main(*sys.argv[1:])
