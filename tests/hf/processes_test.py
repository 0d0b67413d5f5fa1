"""Two processes, each with half of a model: each reads its part, together they export the whole."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

from tests.hf import made
from tests.hf.writer_test import contents

ROOT = Path(__file__).parents[2]


def test_half_is_read_and_the_whole_is_written(moe_folder: Path, tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    out = tmp_path / "out" / "hf"
    environment = {k: v for k, v in os.environ.items() if k != "XLA_FLAGS"}
    command = [sys.executable, "-m", "tests.hf.one_of_two"]
    both = [
        subprocess.Popen(
            [*command, str(i), str(port), str(moe_folder), str(out)], cwd=ROOT, env=environment,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )
        for i in range(2)
    ]  # fmt: skip
    ended = [process.communicate(timeout=300) for process in both]
    assert [process.returncode for process in both] == [0, 0], ended
    assert contents(out) == contents(moe_folder)
    names = sorted(file.name for file in out.parent.iterdir())
    assert names == ["hf", "hf-of-0", "hf-of-1"]
    # What is cut along rows is read by half, what is cut along columns (o and down, whose rows
    # hold both halves) and what both keep whole (router, norms) is read whole.
    c = made.config_of(made.MOE[0])
    D, F, H, K, C = c.width, c.expert_ff, c.heads, c.kv_heads, c.head_dim
    halved = 2 * c.vocab * D + c.layers * ((H + 2 * K) * C * D + c.experts * 2 * D * F)
    whole = D + c.layers * (H * C * D + c.experts * D * F + c.experts * D + 2 * D + 2 * C)
    read = [json.loads(told.splitlines()[-1])["read"] for told, _ in ended]
    assert read == [2 * (halved // 2 + whole)] * 2
