"""Machines by name, v5e:8x8 or h200:8: what their devices hold and do, and stand-ins for them that
programs can be compiled for while none is at hand.
"""

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

import jax
from jax.experimental import topologies

from seirenes_jax.cli import NO_TPU
from seirenes_jax.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Chip:
    """Of a GPU, what XLA asks before it compiles for it."""

    compute: tuple[int, int]  # capability
    cores: int  # multiprocessors
    threads: int  # of a core
    shared_kib: int  # memory that a core's threads share
    l2_mib: int
    mhz: int


HOPPER, ADA, BIG_ADA = (
    Chip((9, 0), 132, 2048, 228, 50, 1980), Chip((8, 9), 58, 1536, 100, 48, 2040),
    Chip((8, 9), 128, 1536, 100, 72, 2520),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of device. Rates of TPUs are those of their makers, of GPUs 80% of theirs in
    products and 90% in reading, which large ones reach on an H200."""

    platform: str  # tpu | gpu
    axes: int  # numbers in its topologies: 2 for v5e:8x8, 1 for h200:8
    gib: float  # memory that a program may use
    tflops: float  # matrix products in bfloat16
    gb_s: float  # reading memory
    a_host: int  # devices of one process
    ahead: bool = True  # can be compiled for while it is not there
    chip: Chip | None = None  # of GPUs


KINDS: Mapping[str, Kind] = {
    "v4": Kind("tpu", 3, 31.25, 275, 1_100, 4, ahead=False),
    "v5e": Kind("tpu", 2, 15.75, 197, 820, 4),
    "v5p": Kind("tpu", 3, 95.74, 459, 2_770, 4),
    "v6e": Kind("tpu", 2, 31.25, 918, 1_640, 4),
    "h100": Kind("gpu", 1, 78.0, 790, 3_000, 8, chip=HOPPER),
    "h200": Kind("gpu", 1, 139.0, 790, 4_300, 8, chip=HOPPER),
    "l4": Kind("gpu", 1, 22.0, 97, 270, 8, chip=ADA),
    "rtx4090": Kind("gpu", 1, 23.0, 132, 900, 8, chip=BIG_ADA),
}
# How 1, 4, 8, ... TPUs of one island lie, by the axes of their kind.
ISLANDS: Mapping[int, Mapping[int, str]] = {
    2: {1: "1x1", 4: "2x2", 8: "2x4", 16: "4x4", 32: "4x8", 64: "8x8", 128: "8x16", 256: "16x16"},
    3: {4: "2x2x1", 8: "2x2x2", 16: "2x2x4", 32: "2x4x4", 64: "4x4x4", 128: "4x4x8"},
}
TPU_AOT, CUDA_AOT, CPU, ANALYTIC = "tpu-aot", "cuda-aot", "cpu-virtual", "analytic"


@dataclass(frozen=True, slots=True)
class Topology:
    """Devices of one kind, as they are wired."""

    name: str
    kind: Kind
    count: int

    @property
    def a_process(self) -> int:
        return min(self.kind.a_host, self.count)


def parse(name: str) -> Topology:
    """v5e:8x8, v5p:2x2x4, h200:8 or h200 (one of them)."""
    family, _, shape = name.partition(":")
    if family not in KINDS:
        raise ConfigError(
            f"--topology: got {name!r}; wanted one of {', '.join(KINDS)} with a shape, like "
            "v5e:8x8, v5p:2x2x4 or h200:8"
        )
    kind = KINDS[family]
    parts = (shape or "1").split("x")
    if not all(part.isdigit() and int(part) for part in parts) or len(parts) != kind.axes:
        example = "x".join(["4"] * kind.axes)
        raise ConfigError(
            f"--topology: got {name!r}; {family} wants {kind.axes} numbers, like {family}:{example}"
        )
    count = math.prod(map(int, parts))
    if kind.platform == "tpu" and count not in ISLANDS[kind.axes]:
        known = ", ".join(f"{family}:{x}" for x in ISLANDS[kind.axes].values())
        raise ConfigError(f"--topology: got {name!r}, {count} devices; there are {known}")
    if kind.platform == "gpu" and count > kind.a_host:
        raise ConfigError(
            f"--topology: got {name!r}; GPUs of one host are planned, at most {kind.a_host}"
        )
    return Topology(f"{family}:{shape or 1}", kind, count)


def island(topology: Topology, count: int) -> Topology:
    """So many of these devices, next to each other, as a machine of its own."""
    if count == topology.count:
        return topology
    family = topology.name.partition(":")[0]
    shapes = ISLANDS.get(topology.kind.axes, {})
    if count not in shapes:
        raise ConfigError(
            f"decode.hosts: an island of {count} {family} devices is no shape that exists; wanted "
            f"{', '.join(map(str, shapes))} devices"
        )
    return Topology(f"{family}:{shapes[count]}", topology.kind, count)


def how(topology: Topology) -> str:
    """By which means programs for it are judged here."""
    if not topology.kind.ahead:
        return ANALYTIC
    if topology.kind.platform == "tpu":
        there = find_spec("libtpu") is not None or "TPU_LIBRARY_PATH" in os.environ
        return TPU_AOT if there else CPU
    plugins = ("jax_cuda13_plugin", "jax_cuda12_plugin")
    return CUDA_AOT if any(find_spec(name) is not None for name in plugins) else CPU


def get_ready(topology: Topology) -> None:
    """Before jax touches a device: this process works on CPU, with a device for each of these."""
    jax.config.update("jax_platforms", "cpu")
    flags, stand_ins = os.environ.get("XLA_FLAGS", ""), "--xla_force_host_platform_device_count"
    if stand_ins not in flags:
        flags += f" {stand_ins}={topology.count}"
    os.environ["XLA_FLAGS"] = f"{flags} --xla_gpu_autotune_level=0".strip()
    os.environ |= {
        "TPU_SKIP_MDS_QUERY": "1",  # asks nobody what machine this is
        "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",  # another process may plan, too
        "TPU_STDERR_LOG_LEVEL": "3", "TPU_MIN_LOG_LEVEL": "3", "TF_CPP_MIN_LOG_LEVEL": "3",
        **NO_TPU,
    }  # fmt: skip


def devices(topology: Topology) -> list[Any]:
    """Stand-ins: they can be compiled for (`how` says with what right) and hold nothing."""
    means = how(topology)
    if means in (CPU, ANALYTIC):
        found = jax.devices("cpu")
        if len(found) < topology.count:
            raise ConfigError(
                f"--topology={topology.name}: {topology.count} devices to stand in were wanted; "
                f"this process has {len(found)}"
            )
        return list(found[: topology.count])
    if means == CUDA_AOT:
        shape = f"1x1x{topology.count}"
        described = topologies.get_topology_desc(
            "", "cuda", target_config=cuda_target(topology), topology=shape
        )
    elif topology.count == 1:
        described = topologies.get_topology_desc(
            topology.name, "tpu", chips_per_host_bounds=(1, 1, 1)
        )
    else:
        described = topologies.get_topology_desc(topology.name, "tpu")
    return list(described.devices)


def cuda_target(topology: Topology) -> str:
    """What XLA wants to know of a GPU, in its own words."""
    family, gib, chip = topology.name.partition(":")[0], topology.kind.gib, topology.kind.chip
    assert chip is not None
    major, minor = chip.compute
    own = "feature_extension: ACCELERATED_FEATURES" if major == 9 else ""  # of sm_90a
    limits = {
        "threads_per_block_limit": 1024, "threads_per_warp": 32,
        "threads_per_core_limit": chip.threads, "shared_memory_per_block": 49152,
        "shared_memory_per_block_optin": (chip.shared_kib - 1) * 2**10,
        "shared_memory_per_core": chip.shared_kib * 2**10, "registers_per_core_limit": 65536,
        "registers_per_block_limit": 65536, "block_dim_limit_x": 2**31 - 1,
        "block_dim_limit_y": 65535, "block_dim_limit_z": 65535, "thread_dim_limit_x": 1024,
        "thread_dim_limit_y": 1024, "thread_dim_limit_z": 64, "core_count": chip.cores,
        "fpus_per_core": 128, "l2_cache_size": chip.l2_mib * 2**20,
        "clock_rate_ghz": chip.mhz / 1000,
        "memory_bandwidth": int(topology.kind.gb_s / 0.9 * 1e9),
        "device_memory_size": int(gib * 2**30), "device_address_bits": 64,
    }  # fmt: skip
    lines = [f"  {name}: {value}" for name, value in limits.items()]
    versions = 'driver_version: "13.0.0" runtime_version: "13.0.0" dnn_version: "9.10.0"'
    return "\n".join([
        "gpu_device_info {", *lines,
        f"  cuda_compute_capability {{ major: {major} minor: {minor} {own} }}",
        f'  device_vendor: "NVIDIA Corporation" name: "{family}" {versions}',
        f'  model_str: "sm_{major}.{minor}{"a" if own else ""} with {int(gib * 2**30)}B RAM, '
        f'{chip.cores} cores, {chip.mhz}000KHz clock"',
        "}", 'platform_name: "CUDA"', "dnn_version_info { major: 9 minor: 10 }",
        f'device_description_str: "{family}"',
    ])  # fmt: skip
