"""Qwen3-4B, every weight trained, on DAPO-Math-17k. One variant a machine; docs/plans.md has the
plan of each.

    python launch/plan.py --config=configs/qwen4b.py:v5e --topology=v5e:8x8
    python launch/train.py --config=configs/qwen4b.py:v5e --coordinator=auto   # on every host
"""

from ml_collections import ConfigDict

from configs import base


def get_config(variant: str) -> ConfigDict:
    c = base.get_config()
    with c.unlocked():
        c.model.path = "Qwen/Qwen3-4B-Instruct-2507"
        c.model.remat = "full"
        c.problems.path = "BytedTsinghua-SIA/DAPO-Math-17k"
        c.batch.row_tokens = 10_240  # tokens.prompt + tokens.reasoner
        MACHINES[variant or "v5e"](c)
    return c


def v5e(c: ConfigDict) -> None:
    """TPU v5e, 8x8: 64 chips of 16 GiB, 16 hosts. Training fills 12.7 GiB of a chip."""
    c.mesh.fsdp, c.batch.rows = 64, 64
    c.decode.tensor, c.sampler.slots = 4, 16


def v5p(c: ConfigDict) -> None:
    """TPU v5p, 2x2x2: 8 chips of 95 GiB, 2 hosts."""
    c.mesh.fsdp, c.batch.rows = 8, 16
    c.decode.tensor, c.sampler.slots = 1, 64


def v6e(c: ConfigDict) -> None:
    """TPU v6e, 4x4: 16 chips of 32 GiB, 4 hosts. Training fills 21.6 GiB of a chip."""
    c.mesh.fsdp, c.batch.rows = 16, 16
    c.decode.tensor, c.sampler.slots = 4, 32


def gpu8(c: ConfigDict) -> None:
    """8 H100 or H200 of one host. Prefill fills 45.2 GiB of a GPU, training 44.2."""
    c.mesh.fsdp, c.batch.rows = 8, 8
    c.decode.tensor, c.sampler.slots = 1, 128


def h200(c: ConfigDict) -> None:
    """One H200. Training fills 130.2 GiB of it."""
    c.batch.rows, c.sampler.slots = 1, 32


MACHINES = {"v5e": v5e, "v5p": v5p, "v6e": v6e, "gpu8": gpu8, "h200": h200}
VARIANTS = tuple(MACHINES)
