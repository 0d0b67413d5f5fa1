"""seirenes_jax, as a run uses it: the sampler's slots; packed rows and two jitted steps."""

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

sys.path.insert(1, str(Path(__file__).resolve().parent.parent.parent))

import jax  # noqa: E402
import numpy as np  # noqa: E402
import wire  # noqa: E402
import work  # noqa: E402

from seirenes_jax import hf, settings, sharding  # noqa: E402
from seirenes_jax.batch import Piece, Plan, Row, lay_out, pack  # noqa: E402
from seirenes_jax.gear import first_state, put  # noqa: E402
from seirenes_jax.knobs import Settings  # noqa: E402
from seirenes_jax.layout import make_layout  # noqa: E402
from seirenes_jax.losses import token_weights  # noqa: E402
from seirenes_jax.models import ModelConfig  # noqa: E402
from seirenes_jax.models.config import fitted  # noqa: E402
from seirenes_jax.optim import make_optimizer  # noqa: E402
from seirenes_jax.rng import draw_key  # noqa: E402
from seirenes_jax.sampler import Draw, Sampler, Seat  # noqa: E402
from seirenes_jax.sharding import make_mesh  # noqa: E402
from seirenes_jax.start import abstract_params  # noqa: E402
from seirenes_jax.state import abstract_state  # noqa: E402
from seirenes_jax.step import add_gradient, apply_gradient, zero_gradient  # noqa: E402
from seirenes_jax.types import LIVE, REASONER, Ask, Name  # noqa: E402

BASE = Path(__file__).resolve().parent.parent.parent / "configs" / "base.py"
STREAMS = ("clean",)


class Numbers:
    """What the sampler asks of a tokenizer: where answers stop. Nobody reads them as text."""

    stop_ids = (work.EOS,)

    def decode_many(self, answers: list[list[int]]) -> list[str]:
        return [""] * len(answers)


def begin(folder: Path, *overrides: str) -> tuple[Settings, ModelConfig, Any]:
    """Knobs of configs/base.py in float32, the model as it runs here, the mesh."""
    found, _ = settings.load(str(BASE), ["model.dtype=float32", *overrides])
    mesh = make_mesh(found.mesh)
    model = found.model
    config = hf.read_config(
        folder, dtype=model.dtype, param_dtype=model.param_dtype, remat=model.remat
    )
    return found, fitted(config, model, mesh), mesh


def decode(case: str, folder: Path, variant: str) -> wire.Made:
    requests = work.DECODE[case]
    found, config, mesh = begin(folder, f"sampler.slots={requests.slots}")
    abstract = abstract_params(config, mesh)
    params = hf.load(folder, config, abstract)
    to_decode, _ = make_layout(abstract, mesh, found.decode, dtype=found.model.dtype)
    alone: Any = Numbers()
    sampler = Sampler(
        config, alone, found.sampler, seed=0, prompt_tokens=requests.prompt,
        answer_tokens=requests.longest,
    )  # fmt: skip
    prompts = [tuple(prompt) for prompt in requests.prompts()]
    ask = Ask(REASONER, (), 1, None, None, requests.longest)
    names = [Name(str(i), 0, "0", 0, 0, 0) for i in range(len(prompts))]

    def call() -> dict[str, Any]:
        """As the loop does each step: weights laid out, slots made, filled and given back."""
        sampler.load(LIVE, to_decode(params), 0)
        sampler.begin(1, found.sampler.temperature)
        sampler.put(
            Seat(name, ask, prompt, Draw(draw_key(0, 1, name), 1.0, 0, 1.0))
            for name, prompt in zip(names, prompts, strict=True)
        )
        done = sampler.ask(())
        while sampler.busy:
            done += sampler.ask(())
        sampler.release()
        said = {rollout.name: rollout.tokens.tolist() for rollout in done}
        use = sampler.use.drawn / sampler.use.steps
        return {"answers": [said[name] for name in names], "slot_use": use}

    return f"{requests.slots} slots, chunk {found.sampler.chunk}", call


def pieces(lessons: work.Lessons) -> list[list[Piece]]:
    sequences = lessons.sequences()
    length_R = np.array([len(answer) for _, answers, _ in sequences for answer in answers])
    weight = token_weights(
        length_R, np.zeros_like(length_R), np.ones(len(length_R)), aggregate="token",
        stream_weights=np.ones(1), limits=np.array([lessons.longest]),
    )[0]  # fmt: skip
    return [
        [
            Piece(
                tuple(prompt), np.array(answer, np.int32),
                np.full(len(answer), lessons.old_logprob, np.float32), advantage, float(weight), 0,
            )
            for answer, advantage in zip(answers, advantages, strict=True)
        ]
        for prompt, answers, advantages in sequences
    ]  # fmt: skip


def packed(lessons: work.Lessons, found: Settings) -> tuple[list[Row], Plan]:
    """Packed rows; and how they are laid out: as few micro-batches as may be, all alike."""
    rows = pack(pieces(lessons), found.batch.row_tokens)
    micros = -(-len(rows) // found.batch.rows)
    batch = replace(found.batch, rows=-(-len(rows) // micros))
    plan = Plan(
        streams=STREAMS, limits=(lessons.longest,), advantage=found.advantage, loss=found.loss,
        knobs=found.streams, batch=batch, temperature=found.sampler.temperature,
    )  # fmt: skip
    return rows, plan


def train(case: str, folder: Path, variant: str) -> wire.Made:
    """`variant`: rows of a micro-batch, at most, x tokens of a row."""
    lessons = work.TRAIN[case]
    most, row_tokens = map(int, variant.split("x"))
    found, config, mesh = begin(
        folder, f"batch.row_tokens={row_tokens}", f"batch.rows={most}",
        f"optimizer.lr={work.LEARNING_RATE}", "optimizer.warmup_steps=0",
    )  # fmt: skip
    rows, plan = packed(lessons, found)
    optimizer = make_optimizer(found.optimizer, found.steps)
    abstract = abstract_params(config, mesh)
    state = first_state(
        hf.load(folder, config, abstract), optimizer, abstract_state(abstract, optimizer, mesh)
    )
    positions = -(-len(rows) // plan.batch.rows) * plan.batch.rows * plan.batch.row_tokens
    used = sum(
        len(prompt) - 1 + sum(len(piece.tokens) for piece in own)
        for row in rows for prompt, own in row
    )  # fmt: skip

    def call() -> dict[str, Any]:
        nonlocal state
        grads, totals = zero_gradient(state.params), []
        for micro in lay_out(rows, plan):
            batch = jax.tree.map(put, micro, sharding.batch_shardings(micro, mesh))
            grads, told = add_gradient(
                state.params, grads, batch, config=config, loss=plan.loss, streams=STREAMS
            )
            totals.append(told)
        state, applied = apply_gradient(state, grads, optimizer=optimizer)
        loss = sum(float(told[f"loss/{STREAMS[0]}"].sum) for told in jax.device_get(totals))
        norm = float(applied["grad_norm"])
        jax.block_until_ready(state)
        return {"loss": loss, "grad_norm": norm, "slot_use": used / positions}

    return f"{len(rows)} rows of {row_tokens}, {plan.batch.rows} at a time", call


if __name__ == "__main__":
    wire.serve({"decode": decode, "train": train}, ["jax", "jaxlib", "flax", "optax", "numpy"])
