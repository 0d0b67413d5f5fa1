"""A step with bad numbers, computed again from RUN/bad/step-N, and whose fault it was.

The same programs over the same weights and batch: on the same devices every number comes back bit
for bit. Where they do not, the machine is the suspect.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import NamedSharding, PartitionSpec
from ml_collections import ConfigDict

from seirenes_jax import base as bases
from seirenes_jax import evidence, knobs, sharding
from seirenes_jax.checkpoint import load_params
from seirenes_jax.console import printable
from seirenes_jax.errors import ConfigError
from seirenes_jax.evidence import Evidence, numbers_of
from seirenes_jax.folder import read_config
from seirenes_jax.games import GAMES
from seirenes_jax.gear import first_state, put
from seirenes_jax.knobs import Settings
from seirenes_jax.models import ModelConfig, split, trained
from seirenes_jax.models.config import fitted
from seirenes_jax.optim import make_optimizer
from seirenes_jax.settings import build
from seirenes_jax.start import abstract_params, model_of_run
from seirenes_jax.state import Params, TrainBatch, abstract_state
from seirenes_jax.step import (
    add_gradient,
    apply_gradient,
    bounds,
    score_step,
    still_sound,
    zero_gradient,
)

SHOWN = 3  # completions
ELSEWHERE = 1e-3  # relative: what numbers may move by on other devices
ALONE = knobs.Mesh(1, 1, 1, 1, 1)


@dataclass(frozen=True, slots=True, eq=False)
class Scene:
    """What the step was computed with."""

    settings: Settings
    config: ModelConfig
    mesh: jax.sharding.Mesh
    params: Params
    base: Params | None
    same_mesh: bool


def replay(folder: Path, say: Callable[[str], None]) -> bool:
    """Say what was seen and what is found now, and which completions are bad; did it come back?"""
    it = evidence.read(folder)
    scene = set_scene(folder.absolute().parent.parent, it.checkpoint)
    say(f"step {it.step} was not applied: {'; '.join(it.complaints)}")
    if not scene.same_mesh:
        say("these are other devices than the run's mesh wants: numbers are compared to 0.1%")
    whole = len(it.kept) == len(it.parts)
    if not whole:
        say(f"micro-batches {list(it.kept)} of {len(it.parts)} were kept (numbers.most_mib); the "
            "gradient norm of all of them cannot be computed again")  # fmt: skip
    found, norm = compute(scene, it.batches)
    rows = [
        (f"micro-batch {index}: {name}", it.parts[index][name], numbers[name], limit)
        for index, numbers in zip(it.kept, found, strict=True)
        for name, limit in bounds(it.parts[index], scene.settings.numbers).items()
    ]
    if whole:
        rows.append(("grad_norm", it.seen["grad_norm"], norm, scene.settings.numbers.gradient))
    width = max(len(name) for name, *_ in rows)
    say(f"{'':{width}}  {'seen':>14}  {'found now':>14}  {'bound':>8}")
    for name, seen, now, limit in rows:
        mark = "" if _within(now, limit) else "  <- bad"
        say(f"{name:{width}}  {seen:>14.8g}  {now:>14.8g}  {limit:>8.3g}{mark}")
    for words in culprits(scene, it):
        say(words)
    back = all(_same(seen, now, exactly=scene.same_mesh) for _, seen, now, _ in rows)
    say("every number came back" if back else
        "the numbers did not come back: the same programs over the same weights and batch gave "
        "others. Suspect the device or its memory, or another version of a library")  # fmt: skip
    return back


def set_scene(run: Path, checkpoint: int) -> Scene:
    """Weights, config and mesh of a run at a saved step; one device, where its mesh finds none."""
    if not (run / "config.json").is_file():
        raise ConfigError(f"{run}: no run (no config.json); wanted RUN/bad/step-N inside its run")
    settings = build(ConfigDict(read_config(run)))
    wanted = math.prod(getattr(settings.mesh, axis) for axis in sharding.MESH_AXES)
    same = wanted <= jax.device_count()
    mesh = sharding.make_mesh(settings.mesh if same else ALONE)
    config = fitted(model_of_run(run, settings)[0], settings.model, mesh)
    abstract = abstract_params(config, mesh)
    step, params = load_params(run / "checkpoints", trained(abstract, config), checkpoint)
    base = None
    if config.lora is not None:
        base = bases.of_run(run, settings, config, abstract=split(abstract)[0], step=step)
    return Scene(settings, config, mesh, params, base, same)


def placed(scene: Scene, batch: TrainBatch) -> TrainBatch:
    """On the devices, as a step has it."""
    return jax.tree.map(put, batch, sharding.batch_shardings(batch, scene.mesh))  # type: ignore[no-any-return]


def compute(
    scene: Scene, batches: tuple[TrainBatch, ...]
) -> tuple[list[evidence.Numbers], float]:
    """The numbers of every micro-batch and the gradient norm of all, as `learn.update` has them."""
    settings, params = scene.settings, scene.params
    grads = zero_gradient(params)
    sound = put(np.bool_(True), NamedSharding(scene.mesh, PartitionSpec()))
    found = []
    for batch in batches:
        grads, totals = add_gradient(
            params, grads, placed(scene, batch), config=scene.config, loss=settings.loss,
            streams=GAMES[settings.game].streams, base=scene.base,
        )  # fmt: skip
        sound = still_sound(sound, totals, numbers=settings.numbers)
        found.append(numbers_of(jax.device_get(totals)))
    optimizer = make_optimizer(settings.optimizer, settings.steps)
    abstract = abstract_state(
        trained(abstract_params(scene.config, scene.mesh), scene.config), optimizer, scene.mesh
    )
    state = first_state(jax.tree.map(jnp.copy, params), optimizer, abstract)
    _, said = apply_gradient(
        state, grads, sound, optimizer=optimizer, most=settings.numbers.gradient
    )
    return found, float(said["grad_norm"])


def culprits(scene: Scene, it: Evidence) -> list[str]:
    """The completions whose own numbers are worst: a text each."""
    logps = _logprobs(scene, it)
    judged = [(_own(it, one, logps), one) for one in it.completions]
    if not any(_is_bad(scene, numbers) for numbers, _ in judged):
        judged = by_gradient(scene, it)
    judged.sort(key=lambda pair: _badness(pair[0]), reverse=True)
    return [
        ("\nbad: " if _is_bad(scene, numbers) else "\n") + _shown(numbers, one)
        for numbers, one in judged[:SHOWN]
    ]


def _own(
    it: Evidence, one: dict[str, Any], logps: list[np.ndarray]
) -> dict[str, float]:
    """Largest |logprob| and ratio of a completion, and its advantage."""
    index = it.kept.index(one["micro_batch"])
    batch = it.batches[index]
    here = _mine(batch, one)
    logp = logps[index][here].astype(np.float64)
    old = np.asarray(batch.logp_old_BT)[here]
    with np.errstate(over="ignore"):
        ratio = np.exp(logp - old)
    return {
        "logprob": float(np.max(np.abs(logp))), "ratio": float(np.max(ratio)),
        "advantage": _of(batch.adv_BT, here), "weight": _of(batch.weight_BT, here),
    }  # fmt: skip


def _mine(batch: TrainBatch, one: dict[str, Any]) -> np.ndarray:
    """Where a completion's tokens are."""
    found = np.zeros(np.shape(batch.train_BT), bool)
    found[one["row"]] = np.asarray(batch.segments_BT)[one["row"]] == one["segment"]
    found &= np.asarray(batch.train_BT)
    return found


def _of(values_BT: Any, here: np.ndarray) -> float:
    """What all its tokens share."""
    return float(np.asarray(values_BT)[here][0])


def _logprobs(scene: Scene, it: Evidence) -> list[np.ndarray]:
    return [
        np.asarray(score_step(scene.params, placed(scene, batch), config=scene.config,
                              base=scene.base))
        for batch in it.batches
    ]  # fmt: skip


def by_gradient(scene: Scene, it: Evidence) -> list[tuple[dict[str, float], dict[str, Any]]]:
    """Each completion's own gradient norm, in the micro-batch whose own is largest."""
    norm = jax.jit(optax.tree.norm)

    def own(batch: TrainBatch) -> float:
        grads, _ = add_gradient(
            scene.params, zero_gradient(scene.params), placed(scene, batch), config=scene.config,
            loss=scene.settings.loss, streams=GAMES[scene.settings.game].streams, base=scene.base,
        )  # fmt: skip
        return float(norm(grads))

    norms = [own(batch) for batch in it.batches]
    index = max(range(len(norms)), key=lambda i: _size(norms[i]))
    batch, found = it.batches[index], []
    for one in it.completions:
        if one["micro_batch"] == it.kept[index]:
            mine = _mine(batch, one)
            alone = batch.replace(  # type: ignore[attr-defined]
                weight_BT=np.where(mine, batch.weight_BT, np.float32(0))
            )
            said = {"gradient norm": own(alone), "advantage": _of(batch.adv_BT, mine)}
            found.append((said, one))
    return found


def _is_bad(scene: Scene, numbers: dict[str, float]) -> bool:
    limits = scene.settings.numbers
    known = {"logprob": limits.logprob, "ratio": limits.ratio, "gradient norm": limits.gradient}
    return any(not _within(value, known.get(name, math.inf)) for name, value in numbers.items())


def _badness(numbers: dict[str, float]) -> tuple[bool, float]:
    """What is not finite comes first, then what is largest."""
    values = [_size(value) for value in numbers.values()]
    return any(math.isinf(value) for value in values), max(values)


def _size(value: float) -> float:
    return abs(value) if math.isfinite(value) else math.inf


def _within(value: float, limit: float) -> bool:
    return math.isfinite(value) and abs(value) <= limit


def _same(seen: float, now: float, *, exactly: bool) -> bool:
    if not (math.isfinite(seen) and math.isfinite(now)):
        return str(seen) == str(now)
    return seen == now if exactly else math.isclose(seen, now, rel_tol=ELSEWHERE, abs_tol=1e-6)


def _shown(numbers: dict[str, float], one: dict[str, Any]) -> str:
    name = one["name"]
    told = ", ".join(f"{what} {value:.6g}" for what, value in numbers.items())
    return printable(
        f"problem {name['problem']!r} visit {name['visit']} turn {name['turn']} ask "
        f"{name['ask']} sample {name['sample']} ({one['stream']}, micro-batch "
        f"{one['micro_batch']}, row {one['row']}, segment {one['segment']}, {one['tokens']} "
        f"tokens): {told}\n  prompt: {one['prompt']}\n  completion: {one['completion']}"
    )

