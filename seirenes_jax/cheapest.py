"""Where a config does not fit: which knobs, turned least, would make it, by arithmetic."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from seirenes_jax.errors import ConfigError
from seirenes_jax.footprint import GIB, Judged, held_bytes, temporary
from seirenes_jax.knobs import Settings
from seirenes_jax.models import ModelConfig
from seirenes_jax.programs import Scene, set_scene
from seirenes_jax.settings import lookup
from seirenes_jax.topologies import Topology

Change = Mapping[str, Any]  # knob -> value
TURNS = 12  # in a row, at most
NOTICED = 0.01  # GiB


def _rows(s: Settings) -> Iterator[Change]:
    """Fewer rows at a time, more micro-batches: costs next to nothing while devices stay full."""
    if s.batch.rows % 2 == 0:
        yield {"batch.rows": s.batch.rows // 2}


def _remat(s: Settings) -> Iterator[Change]:
    """Recompute more in the backward pass."""
    order = ("none", "dots", "full", "offload")
    if s.model.remat != order[-1]:
        yield {"model.remat": order[order.index(s.model.remat) + 1]}


def _slots(s: Settings) -> Iterator[Change]:
    """Fewer answers at a time: the weights are read more often for the same tokens."""
    if s.sampler.slots % 2 == 0:
        yield {"sampler.slots": s.sampler.slots // 2}


def _moments(s: Settings) -> Iterator[Change]:
    """Moments of half the size, rounded after each update."""
    if s.optimizer.moments != "bfloat16" and not s.model.lora.rank:
        yield {"optimizer.moments": "bfloat16"}


def _decode_tensor(s: Settings) -> Iterator[Change]:
    """A copy of the weights over twice as many devices."""
    yield {"decode.tensor": 2 * s.decode.tensor}


def _hosts(s: Settings) -> Iterator[Change]:
    """Islands of twice as many hosts, with a copy over all of it."""
    yield {"decode.hosts": 2 * s.decode.hosts, "decode.tensor": 2 * s.decode.tensor}
    yield {"decode.hosts": 2 * s.decode.hosts, "decode.expert": 2 * s.decode.expert}


def _sequence(s: Settings) -> Iterator[Change]:
    """A row over two devices instead of one."""
    if s.mesh.fsdp % 2 == 0:
        yield {
            "mesh.fsdp": s.mesh.fsdp // 2, "mesh.sequence": 2 * s.mesh.sequence,
            "batch.rows": s.batch.rows // 2,
        }  # fmt: skip


def _tokens(s: Settings) -> Iterator[Change]:
    """Shorter answers, and rows that just hold them: another task."""
    longest = s.tokens.reasoner // 2
    if longest >= s.tokens.adversary:
        yield {"tokens.reasoner": longest, "batch.row_tokens": s.tokens.prompt + longest}


# What costs least comes first.
KNOBS: tuple[Callable[[Settings], Iterator[Change]], ...] = (
    _rows, _remat, _slots, _moments, _decode_tensor, _sequence, _hosts, _tokens,
)  # fmt: skip


def cheapest_change(
    settings: Settings, model: ModelConfig, topology: Topology, judged: Sequence[Judged],
    scene: Scene, spare: float,
) -> str:  # fmt: skip
    """Flags that would make it fit, or that nothing tried here does."""
    limit = spare * topology.kind.gib
    turned: dict[str, Any] = {}
    for _ in range(TURNS):
        step = _next(settings, turned, model, topology, judged, scene, limit)
        if step is None:
            break
        turned |= step[0]
        if step[1] == 0.0:
            flags = " ".join(f"--config.{knob}={value}" for knob, value in turned.items())
            return f"{flags} (estimated; plan it to be sure)"
    return (
        "no knob tried here is enough on this machine: batch.rows, model.remat, sampler.slots, "
        "optimizer.moments, decode.*, mesh.sequence, tokens.reasoner; take a larger one"
    )


def _next(
    settings: Settings, turned: Change, model: ModelConfig, topology: Topology,
    judged: Sequence[Judged], scene: Scene, limit: float,
) -> tuple[Change, float] | None:  # fmt: skip
    """The first turn of a knob that helps, and what is still too much after it."""
    now = with_knobs(settings, turned)
    before = excess(_scene(now, model, topology), judged, scene, limit)
    for knob in KNOBS:
        for change in knob(now):
            try:
                then = _scene(with_knobs(now, change), model, topology)
            except ConfigError:
                continue  # a size that does not divide
            left = excess(then, judged, scene, limit)
            if left < before - NOTICED or left == 0.0:
                return change, left
    return None


def _scene(settings: Settings, model: ModelConfig, topology: Topology) -> Scene:
    model = replace(model, remat=settings.model.remat)
    return set_scene(settings, model, topology)


def excess(then: Scene, judged: Sequence[Judged], scene: Scene, limit: float) -> float:
    """GiB above the limit, over all programs. What was found for `scene` is taken as true; what is
    estimated is the difference."""

    def estimate(where: Scene, one: Judged) -> float:
        return (held_bytes(where, one) + temporary(where, one.name)) / GIB

    over = 0.0
    for one in judged:
        peak = one.peak_gib + estimate(then, one) - estimate(scene, one) + one.resident_gib(then)
        over += max(0.0, peak - limit)
    return over


def with_knobs(settings: Settings, change: Change) -> Settings:
    """The settings with these knobs turned, each a section and a name."""
    for path, value in change.items():
        section, name = path.split(".")
        settings = replace(
            settings, **{section: replace(lookup(settings, section), **{name: value})}
        )
    return settings


