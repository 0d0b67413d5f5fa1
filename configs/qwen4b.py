"""Qwen3-4B on DAPO-Math-17k, every weight trained or adapters (lora_*). One variant a machine,
which its docstring names; docs/plans.md has the plan of each.

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


def adapters(c: ConfigDict) -> None:
    """What every variant of adapters has."""
    c.model.lora.rank = 32
    c.optimizer.lr = 1e-5


def v5e(c: ConfigDict) -> None:
    """Every weight on TPU v5e, 8x8: 64 chips of 16 GiB, 16 hosts.

        python launch/plan.py --config=configs/qwen4b.py:v5e --topology=v5e:8x8

    Plan: prefill fills 9.2 of 15.8 GiB a device (tpu-aot); 58,000 tokens/s, modelled.
    """
    c.mesh.fsdp, c.batch.rows = 64, 64
    c.decode.tensor, c.sampler.slots = 4, 16


def v5p(c: ConfigDict) -> None:
    """Every weight on TPU v5p, 2x2x2: 8 chips of 95 GiB, 2 hosts.

        python launch/plan.py --config=configs/qwen4b.py:v5p --topology=v5p:2x2x2

    Plan: prefill fills 64.3 of 95.7 GiB a device (tpu-aot); 31,000 tokens/s, modelled.
    """
    c.mesh.fsdp, c.batch.rows = 8, 16
    c.decode.tensor, c.sampler.slots = 1, 128


def v6e(c: ConfigDict) -> None:
    """Every weight on TPU v6e, 4x4: 16 chips of 32 GiB, 4 hosts.

        python launch/plan.py --config=configs/qwen4b.py:v6e --topology=v6e:4x4

    Plan: prefill fills 19.3 of 31.2 GiB a device (tpu-aot); 47,000 tokens/s, modelled.
    """
    c.mesh.fsdp, c.batch.rows = 16, 16
    c.decode.tensor, c.sampler.slots = 4, 32


def gpu8(c: ConfigDict) -> None:
    """Every weight on 8 H100 or H200 of one host.

        python launch/plan.py --config=configs/qwen4b.py:gpu8 --topology=h100:8

    Plan: prefill fills 49.3 of 78.0 GiB a device (cuda-aot); 33,000 tokens/s, modelled.
    """
    c.mesh.fsdp, c.batch.rows = 8, 8
    c.decode.tensor, c.sampler.slots = 1, 192


def h200(c: ConfigDict) -> None:
    """Every weight on one H200.

        python launch/plan.py --config=configs/qwen4b.py:h200 --topology=h200:1

    Plan: prefill fills 100.7 of 139.0 GiB a device (cuda-aot); 6,200 tokens/s, modelled.
    """
    c.batch.rows, c.sampler.slots = 1, 32


def lora_v5e(c: ConfigDict) -> None:
    """Adapters on TPU v5e, 2x4: 8 chips of 16 GiB, 2 hosts.

        python launch/plan.py --config=configs/qwen4b.py:lora_v5e --topology=v5e:2x4

    Plan: prefill fills 10.1 of 15.8 GiB a device (tpu-aot); 7,600 tokens/s, modelled.
    """
    adapters(c)
    c.mesh.fsdp, c.batch.rows = 8, 8
    c.decode.tensor, c.sampler.slots = 4, 16


def lora_v6e(c: ConfigDict) -> None:
    """Adapters on TPU v6e, 2x4: 8 chips of 32 GiB, 2 hosts.

        python launch/plan.py --config=configs/qwen4b.py:lora_v6e --topology=v6e:2x4

    Plan: prefill fills 18.0 of 31.2 GiB a device (tpu-aot); 24,000 tokens/s, modelled.
    """
    adapters(c)
    c.mesh.fsdp, c.batch.rows = 8, 8
    c.decode.tensor, c.sampler.slots = 4, 32


def lora_h200(c: ConfigDict) -> None:
    """Adapters on one H200.

        python launch/plan.py --config=configs/qwen4b.py:lora_h200 --topology=h200:1

    Plan: prefill fills 79.8 of 139.0 GiB a device (cuda-aot); 7,600 tokens/s, modelled.
    """
    adapters(c)
    c.batch.rows, c.sampler.slots = 4, 48


def lora_h100(c: ConfigDict) -> None:
    """Adapters on one GPU of 80 GB, an H100 or the like.

        python launch/plan.py --config=configs/qwen4b.py:lora_h100 --topology=h100:1

    Plan: prefill fills 57.3 of 78.0 GiB a device (cuda-aot); 5,000 tokens/s, modelled.
    """
    adapters(c)
    c.batch.rows, c.sampler.slots = 2, 32


def lora_24g(c: ConfigDict) -> None:
    """Adapters on one GPU of 24 GB: an L4, the smallest of them, or the like.

        python launch/plan.py --config=configs/qwen4b.py:lora_24g --topology=l4:1

    Plan: prefill fills 16.0 of 22.0 GiB a device (cuda-aot); 120 tokens/s, modelled.
    """
    adapters(c)
    c.batch.rows, c.sampler.slots = 1, 4


MACHINES = {
    "v5e": v5e, "v5p": v5p, "v6e": v6e, "gpu8": gpu8, "h200": h200, "lora_v5e": lora_v5e,
    "lora_v6e": lora_v6e, "lora_h200": lora_h200, "lora_h100": lora_h100, "lora_24g": lora_24g,
}  # fmt: skip
VARIANTS = tuple(MACHINES)
