"""Qwen2.5-7B, every weight trained, on DAPO-Math-17k. One variant a machine; docs/plans.md has the
plan of each.

    python launch/plan.py --config=configs/qwen7b.py:v5e --topology=v5e:8x8
    python launch/train.py --config=configs/qwen7b.py:v5e --coordinator=auto   # on every host

It has 4 key/value heads, so tensor is at most 4.
"""

from ml_collections import ConfigDict

from configs import base


def get_config(variant: str) -> ConfigDict:
    c = base.get_config()
    with c.unlocked():
        c.model.path = "Qwen/Qwen2.5-7B-Instruct"
        c.model.remat = "full"
        c.problems.path = "BytedTsinghua-SIA/DAPO-Math-17k"
        c.batch.row_tokens = 10_240  # tokens.prompt + tokens.reasoner
        MACHINES[variant or "v5e"](c)
    return c


def v5e(c: ConfigDict) -> None:
    """TPU v5e, 8x8: 64 chips of 16 GiB, 16 hosts."""
    c.mesh.fsdp, c.batch.rows = 64, 64
    c.decode.tensor, c.sampler.slots = 4, 16


def v5p(c: ConfigDict) -> None:
    """TPU v5p, 2x2x4: 16 chips of 95 GiB, 4 hosts."""
    c.mesh.fsdp, c.batch.rows = 16, 32
    c.decode.tensor, c.sampler.slots = 1, 64


def v6e(c: ConfigDict) -> None:
    """TPU v6e, 4x4: 16 chips of 32 GiB, 4 hosts."""
    c.mesh.fsdp, c.batch.rows = 16, 16
    c.decode.tensor, c.sampler.slots = 4, 32


def gpu8(c: ConfigDict) -> None:
    """8 H100 or H200 of one host."""
    c.mesh.fsdp, c.batch.rows = 8, 8
    c.decode.tensor, c.sampler.slots = 1, 128


MACHINES = {"v5e": v5e, "v5p": v5p, "v6e": v6e, "gpu8": gpu8}
VARIANTS = tuple(MACHINES)
