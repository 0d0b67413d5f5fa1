"""Qwen3-30B-A3B, every weight trained, on DAPO-Math-17k. One variant a machine, which its docstring
names; docs/plans.md has the plan of each.

    python launch/plan.py --config=configs/qwen30b.py:v5e --topology=v5e:16x16
    python launch/train.py --config=configs/qwen30b.py:v5e --coordinator=auto   # on every host

Its 57 GiB in bfloat16 fit no single host of v5e or v6e: there an island has several.
"""

from ml_collections import ConfigDict

from configs import base


def get_config(variant: str) -> ConfigDict:
    c = base.get_config()
    with c.unlocked():
        c.model.path = "Qwen/Qwen3-30B-A3B-Instruct-2507"
        c.model.remat = "full"
        c.problems.path = "BytedTsinghua-SIA/DAPO-Math-17k"
        c.batch.row_tokens = 10_240  # tokens.prompt + tokens.reasoner
        MACHINES[variant or "v5e"](c)
    return c


def v5e(c: ConfigDict) -> None:
    """TPU v5e, 16x16: 256 chips of 16 GiB, 64 hosts; an island has 4 of them.

        python launch/plan.py --config=configs/qwen30b.py:v5e --topology=v5e:16x16

    Plan: decode fills 10.7 of 15.8 GiB a device (tpu-aot); 110,000 tokens/s, modelled.
    """
    c.mesh.fsdp, c.mesh.expert, c.batch.rows = 128, 2, 256
    c.decode.hosts, c.decode.tensor, c.decode.expert, c.sampler.slots = 4, 4, 4, 32


def v5p(c: ConfigDict) -> None:
    """TPU v5p, 4x4x4: 64 chips of 95 GiB, 16 hosts.

        python launch/plan.py --config=configs/qwen30b.py:v5p --topology=v5p:4x4x4

    Plan: prefill fills 37.7 of 95.7 GiB a device (tpu-aot); 140,000 tokens/s, modelled.
    """
    c.mesh.fsdp, c.mesh.expert, c.batch.rows = 32, 2, 64
    c.decode.tensor, c.decode.expert, c.sampler.slots = 2, 2, 64


def v6e(c: ConfigDict) -> None:
    """TPU v6e, 8x8: 64 chips of 32 GiB, 16 hosts; an island has 2 of them.

        python launch/plan.py --config=configs/qwen30b.py:v6e --topology=v6e:8x8

    Plan: decode fills 23.2 of 31.2 GiB a device (tpu-aot); 56,000 tokens/s, modelled.
    """
    c.mesh.fsdp, c.mesh.expert, c.batch.rows = 32, 2, 64
    c.decode.hosts, c.decode.tensor, c.decode.expert, c.sampler.slots = 2, 4, 2, 32


def h200x8(c: ConfigDict) -> None:
    """8 H200 of one host, the smallest that does it.

        python launch/plan.py --config=configs/qwen30b.py:h200x8 --topology=h200:8

    Plan: train fills 94.6 of 139.0 GiB a device (cuda-aot); 27,000 tokens/s, modelled.
    """
    c.mesh.fsdp, c.mesh.expert, c.batch.rows = 4, 2, 8
    c.decode.tensor, c.decode.expert, c.sampler.slots = 4, 2, 64


MACHINES = {"v5e": v5e, "v5p": v5p, "v6e": v6e, "h200x8": h200x8}
VARIANTS = tuple(MACHINES)
