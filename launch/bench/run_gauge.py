"""The machine itself: how fast one core multiplies matrices right now."""

import time
from pathlib import Path

import jax
import jax.numpy as jnp
import wire

SIDE, TRIES = 2048, 3


def gauge(case: str, folder: Path, variant: str) -> wire.Made:
    ones = jnp.ones((SIDE, SIDE), jnp.float32)
    multiply = jax.jit(jnp.matmul)

    def call() -> dict[str, object]:
        cpu, wall = [], []
        for _ in range(TRIES):
            cpu_0, wall_0 = time.process_time(), time.perf_counter()
            multiply(ones, ones).block_until_ready()
            cpu.append(time.process_time() - cpu_0)
            wall.append(time.perf_counter() - wall_0)
        return {"flops": 2 * SIDE**3 / min(cpu), "took_s": min(wall)}

    return f"float32 matmul of {SIDE}^3", call


if __name__ == "__main__":
    wire.serve({"gauge": gauge}, ["jax", "jaxlib", "numpy"])
