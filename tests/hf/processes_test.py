"""Two processes, each with half of a model: each reads its part, together they export the whole."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

from tests import gcs_server
from tests.hf import made
from tests.hf.writer_test import contents

ROOT = Path(__file__).parents[2]


def run_both(folder: Path | str, out: Path | str, environment: dict[str, str]) -> list[int]:
    """How many bytes of weights each of the two processes read."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    here = {k: v for k, v in os.environ.items() if k != "XLA_FLAGS"} | environment
    command = [sys.executable, "-m", "tests.hf.one_of_two"]
    both = [
        subprocess.Popen(
            [*command, str(i), str(port), str(folder), str(out)], cwd=ROOT, env=here,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )
        for i in range(2)
    ]  # fmt: skip
    ended = [process.communicate(timeout=300) for process in both]
    assert [process.returncode for process in both] == [0, 0], ended
    return [json.loads(told.splitlines()[-1])["read"] for told, _ in ended]


def bytes_of_a_half() -> int:
    """Of the model in bfloat16, as one of two devices along `tensor` needs it."""
    # What is cut along rows is read by half, what is cut along columns (o and down, whose rows
    # hold both halves) and what both keep whole (router, norms) is read whole.
    c = made.config_of(made.MOE[0])
    D, F, H, K, C = c.width, c.expert_ff, c.heads, c.kv_heads, c.head_dim
    halved = 2 * c.vocab * D + c.layers * ((H + 2 * K) * C * D + c.experts * 2 * D * F)
    whole = D + c.layers * (H * C * D + c.experts * D * F + c.experts * D + 2 * D + 2 * C)
    return 2 * (halved // 2 + whole)


def test_half_is_read_and_the_whole_is_written(moe_folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out" / "hf"
    assert run_both(moe_folder, out, {}) == [bytes_of_a_half()] * 2
    assert contents(out) == contents(moe_folder)
    assert sorted(x.name for x in out.parent.iterdir()) == ["hf", "hf-of-0", "hf-of-1"]


def test_so_it_is_in_a_bucket(moe_folder: Path) -> None:
    with gcs_server.serving() as (store, environment):
        for name, data in contents(moe_folder).items():
            store.put(f"bucket/moe/{name}", data, {})
        read = run_both("gs://bucket/moe", "gs://bucket/out/hf", environment)
        assert read == [bytes_of_a_half()] * 2
        under = "bucket/out/hf/"
        found = {name.removeprefix(under): store.read(name) for name in store.names(under)}
    assert found == contents(moe_folder)
    assert [name for name in store.written if under in name][-1] == f"{under}config.json"
