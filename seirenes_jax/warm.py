"""The tiny world's start: a small decoder taught to solve, to trust hints and to write them.

Made once, kept outside the run folder as a Hugging Face folder under the hash of all that shaped
it, and shared by every seed, test and notebook.
"""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import jax
import jax.numpy as jnp
import numpy as np

from seirenes_jax.batch import Piece, Row, fill, pack
from seirenes_jax.knobs import Batch, Optimizer, WarmStart
from seirenes_jax.models import ModelConfig, init_params
from seirenes_jax.optim import make_optimizer
from seirenes_jax.state import Params, TrainBatch, TrainState
from seirenes_jax.step import imitate_step
from seirenes_jax.text import Tokenizer
from seirenes_jax.types import Messages

Example = tuple[Messages, str, str]  # prompt, answer, kind
BLOCK = 512  # examples packed together


def imitate(
    config: ModelConfig, tokenizer: Tokenizer, examples: Callable[[], Sequence[Example]],
    knobs: WarmStart, *, row_tokens: int, on_step: Callable[[int, float], None],
) -> Params:  # fmt: skip
    """Supervised training on the examples; a pure function of its arguments."""
    optimizer = make_optimizer(
        Optimizer(
            lr=knobs.lr, warmup_steps=min(50, knobs.steps // 10), schedule="cosine",
            weight_decay=0.01, b1=0.9, b2=0.98, eps=1e-8, clip=1.0, moments="float32",
        ), knobs.steps,
    )  # fmt: skip
    size = Batch(row_tokens=row_tokens, rows=knobs.batch)

    def begin() -> TrainState:
        params = init_params(config, knobs.seed)
        return TrainState(step=jnp.int32(0), params=params, opt_state=optimizer.init(params))

    def compiled() -> Callable[[TrainState, TrainBatch], tuple[TrainState, jax.Array]]:
        empty = fill([], size, temperature=1.0)
        lowered = imitate_step.lower(
            jax.eval_shape(begin), empty, config=config, optimizer=optimizer
        )
        return lowered.compile()

    with ThreadPoolExecutor(1) as pool:  # the compiler needs no text, and no text needs it
        compiling = pool.submit(compiled)
        batches = supervised_batches(tokenizer, examples(), size, epochs=knobs.steps)
        one_step, state = compiling.result(), begin()
    loss: jax.Array | None = None
    for step in range(1, knobs.steps + 1):
        before, (state, loss) = loss, one_step(state, next(batches))
        # The step before is done by now: reading its loss costs no wait.
        on_step(step, float("nan") if before is None else float(before))
    return state.params


def supervised_batches(
    tokenizer: Tokenizer, examples: Sequence[Example], size: Batch, *, epochs: int
) -> Iterator[TrainBatch]:
    """Packed batches, epoch after epoch; every trained token weighs the same."""
    rows = _rows(tokenizer, examples, size.row_tokens)

    def every() -> Iterator[TrainBatch]:
        for epoch in range(epochs):
            order = np.random.default_rng(epoch).permutation(len(rows))
            for start in range(0, len(rows) - size.rows + 1, size.rows):
                chosen = [rows[i] for i in order[start : start + size.rows]]
                micro = fill(chosen, size, temperature=1.0)
                yield micro.replace(weight_BT=micro.weight_BT / np.sum(micro.train_BT))  # type: ignore[attr-defined]

    return every()


def _rows(tokenizer: Tokenizer, examples: Sequence[Example], row_tokens: int) -> list[Row]:
    pieces = []
    for messages, answer, _ in examples:
        tokens = np.array([*tokenizer.encode(answer), tokenizer.stop_ids[0]], np.int32)
        blank = np.zeros(len(tokens), np.float32)
        pieces.append([Piece(tokenizer.render(messages), tokens, blank, 1.0, 1.0, 0)])
    rows: list[Row] = []
    for start in range(0, len(pieces), BLOCK):
        rows += pack(pieces[start : start + BLOCK], row_tokens)
    return rows
