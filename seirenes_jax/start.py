"""What a run starts from: problems, tokenizer, model, weights, hints that no model writes."""

import fcntl
import json
import math
import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from seirenes_jax import hf, hints, problems
from seirenes_jax.checkpoint import load_params
from seirenes_jax.errors import ConfigError, DataError
from seirenes_jax.folder import read_config
from seirenes_jax.hosts import first, writes
from seirenes_jax.knobs import Lora, Settings
from seirenes_jax.models import ModelConfig, init_params, without_adapters
from seirenes_jax.models.config import from_shape
from seirenes_jax.report import RunLog, write_json
from seirenes_jax.rng import stable_hash
from seirenes_jax.settings import section
from seirenes_jax.sharding import param_shardings
from seirenes_jax.state import Params
from seirenes_jax.store import Folder, at
from seirenes_jax.tasks import texts, world
from seirenes_jax.tasks.tokenizer import train_tokenizer
from seirenes_jax.text import Tokenizer, load_tokenizer
from seirenes_jax.types import Problem
from seirenes_jax.verify.judge import Judge
from seirenes_jax.warm import imitate

TINY = "tiny"  # problems.path of the embedded world
TINY_TRAIN, TINY_HELD_OUT = 8_000, 4_000  # problems of its two splits
TINY_VOCAB = 512
MAX_POSITIONS = 1024  # of models that are initialised here
SHAPED_BY = ("tasks", "models", "warm.py")


@dataclass(frozen=True, slots=True)
class Start:
    """Ready to play. `load_params` reads the starting weights afresh each time it is called, laid
    out as its argument says (`abstract_params`).
    """

    config: ModelConfig
    tokenizer: Tokenizer
    load_params: Callable[[Params], Params]
    train: list[Problem]
    held_out: list[Problem]
    write_hint: Callable[[Problem, str, int], str]
    eval_hint: Callable[[Problem, str, int], str]  # (problem, name of an evaluation, draw)
    rare: tuple[str, ...]  # evaluations of attacks that the starting adversary hardly writes
    warm_tokens: int  # tokens of supervision this process spent


def begin(
    settings: Settings, cache_dir: Path, log: RunLog, *, check: Callable[[], None]
) -> Start:
    """Read or make everything a run needs before its first step; `check` may leave by raising."""
    tiny = settings.problems.path == TINY
    folder: Folder
    if settings.model.path:
        folder, spent = hf.find(settings.model.path), 0
    elif tiny and settings.warm_start.steps > 0:
        folder, spent = warm_start(settings, cache_dir, log, check=check)
    elif tiny:
        return _tiny_from_nothing(settings, cache_dir, log)
    else:
        raise ConfigError(
            "model.path: got nothing; problems from a file need a model and its tokenizer; give a "
            "Hugging Face folder or a hub id"
        )
    model = settings.model
    read = {"dtype": model.dtype, "param_dtype": model.param_dtype, "remat": model.remat}
    config = hf.read_config(folder, **read)
    with hf.local_copy(folder) as small_files:
        tokenizer = load_tokenizer(small_files, settings.prompts.enable_thinking)
    train, held_out = _problems(settings, tokenizer, log)
    return Start(
        config, tokenizer, lambda abstract: hf.load(folder, config, abstract), train, held_out,
        texts.write_hint if tiny else hints.write_hint,
        _tiny_eval_hint if tiny else hints.eval_hint,
        texts.RARE if tiny else (), spent,
    )  # fmt: skip


def _tiny_from_nothing(settings: Settings, cache_dir: Path, log: RunLog) -> Start:
    """warm_start.steps = 0: the tiny world's tokenizer and untrained weights."""
    folder = _cached(cache_dir / "tokenizer" / _digest(settings, ("prompts",)), log,
                     lambda part: train_tokenizer(_corpus(settings), TINY_VOCAB, part))  # fmt: skip
    tokenizer = load_tokenizer(folder, settings.prompts.enable_thinking)
    config = from_shape(settings.model, vocab=tokenizer.vocab_size, max_positions=MAX_POSITIONS)
    train, held_out = _problems(settings, tokenizer, log)

    def untrained(abstract: Params) -> Params:
        params = init_params(config, settings.seed)
        return jax.tree.map(
            lambda x, leaf: jax.device_put(x.astype(leaf.dtype), leaf.sharding), params, abstract
        )

    return Start(
        config, tokenizer, untrained, train, held_out,
        texts.write_hint, _tiny_eval_hint, texts.RARE, 0,
    )  # fmt: skip


def _problems(
    settings: Settings, tokenizer: Tokenizer, log: RunLog
) -> tuple[list[Problem], list[Problem]]:
    """Training and held-out problems; those whose hinted prompt could not fit are left out."""
    n = max(settings.eval.problems, settings.eval.final_problems)
    limit = settings.tokens.prompt

    def count(problem: Problem) -> int:
        messages = hints.reasoner_messages(problem.question, "", settings.prompts)
        return len(tokenizer.render(messages)) + settings.hints.max_tokens

    def fitting(found: list[Problem]) -> list[Problem]:
        return problems.fit(found, limit=limit, count=count)[0]

    if settings.problems.path == TINY:
        if n > TINY_HELD_OUT // 2:
            raise ConfigError(
                f"eval.final_problems: got {n}; the tiny world holds out {TINY_HELD_OUT // 2}"
            )
        held_out = fitting(world.problems("heldout", 2 * n, 1))
        return fitting(world.problems("train", TINY_TRAIN, 0)), held_out[:n]
    judge = settings.judge
    with ExitStack() as stack:
        reader = None
        if settings.problems.checkable:
            reader = stack.enter_context(Judge(judge.workers, judge.deadline_s, judge.memory_gib))
        rows, account = problems.sieve(
            settings.problems, judge=reader, room=(limit, count), open_bar=log.bar
        )
    for line in account.lines():
        log.say(line)
        log.event(line)
    rows.sort(key=lambda problem: stable_hash("held out", problem.id))
    if len(rows) <= n:
        raise DataError(
            f"{settings.problems.path}: {len(rows)} problems fit the limits, {n} are held out for "
            "evaluation; wanted more; lower eval.final_problems or raise tokens.prompt"
        )
    return rows[n:], rows[:n]


def _tiny_eval_hint(problem: Problem, name: str, draw: int) -> str:
    return texts.eval_hint(world.story_of(problem), name, draw)


def warm_start(
    settings: Settings, cache_dir: Path, log: RunLog, *, check: Callable[[], None]
) -> tuple[Path, int]:
    """The tiny world's supervised start, made once for all runs that share these knobs."""
    spent = [0]

    def make(part: Path) -> None:
        knobs = settings.warm_start
        tokenizer_folder = part.parent / (part.name + ".tokenizer")
        train_tokenizer(_corpus(settings), TINY_VOCAB, tokenizer_folder)
        tokenizer = load_tokenizer(tokenizer_folder, settings.prompts.enable_thinking)
        config = from_shape(settings.model, vocab=tokenizer.vocab_size, max_positions=MAX_POSITIONS)
        examples = partial(texts.warm_examples, knobs.problems, knobs.seed, settings.prompts)
        row_tokens = settings.tokens.prompt + settings.tokens.reasoner
        with log.bar("warm start", knobs.steps, "step") as bar:

            def heard(_: int, loss: float) -> None:
                check()
                bar.advance(1, "" if math.isnan(loss) else f"loss {loss:.3f}")

            params = imitate(
                config, tokenizer, examples, knobs, row_tokens=row_tokens, on_step=heard
            )
        spent[0] = knobs.steps * knobs.batch * row_tokens
        hf.export(params, config, part, tokenizer=tokenizer, dtype=settings.model.param_dtype)
        shutil.rmtree(tokenizer_folder)

    # Adapters come after it: runs with and without share their start.
    alike = replace(settings, model=replace(settings.model, lora=Lora(0, 1.0, ())))
    digest = _digest(alike, ("prompts", "model", "warm_start", "tokens"))
    return _cached(cache_dir / "warm" / digest, log, make), spent[0]


def _corpus(settings: Settings) -> list[str]:
    return texts.corpus(3_000, 0, settings.prompts)


def _digest(settings: Settings, sections: tuple[str, ...]) -> str:
    """Of the knobs and of the source that turn them into weights: another world, another folder."""
    here = Path(__file__).parent
    sources = sorted(
        file for name in SHAPED_BY for file in
        (sorted((here / name).glob("*.py")) if (here / name).is_dir() else [here / name])
    )  # fmt: skip
    knobs = [str(sorted(section(getattr(settings, name)).items())) for name in sections]
    return f"{stable_hash(*knobs, *(file.read_text() for file in sources)):016x}"


def _cached(folder: Path, log: RunLog, make: Callable[[Path], None]) -> Path:
    """Make a folder once: under a lock, in a partial folder, renamed when whole."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with _lock(folder.with_suffix(".lock"), log):
        if not folder.is_dir():
            part = folder.with_suffix(".part")
            shutil.rmtree(part, ignore_errors=True)
            make(part)
            os.rename(part, folder)
    return folder


@contextmanager
def _lock(file: Path, log: RunLog) -> Iterator[None]:
    """One process makes, the others wait and say so. The lock dies with its process."""
    with open(file, "w") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            log.say(f"waiting for another process that makes {file.with_suffix('').name}")
            started = time.monotonic()
            fcntl.flock(handle, fcntl.LOCK_EX)
            log.say(f"waited {time.monotonic() - started:.0f} s")
        yield


def abstract_params(config: ModelConfig, mesh: Mesh) -> Params:
    """Shape, dtype and place of every parameter; nothing is allocated."""
    shapes = jax.eval_shape(lambda: init_params(config, 0))
    return jax.tree.map(
        lambda leaf, place: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=place),
        shapes, param_shardings(shapes, mesh),
    )  # fmt: skip


def starting_params(start: Start, settings: Settings, run: Path, mesh: Mesh) -> Params:
    """The weights before the first step: those of the model, or (`init_from`) of another run; all
    of them, without adapters.

    They are read straight to where they live in the mesh. Which checkpoint it was is noted in the
    run folder: a resumed run means the same one.
    """
    config = without_adapters(start.config)
    if not settings.init_from:
        return start.load_params(abstract_params(config, mesh))
    source = at(settings.init_from)
    stored = read_config(source)["model"]
    if isinstance(stored, dict) and "lora" in stored and stored["lora"]["rank"]:
        raise ConfigError(
            f"init_from: {source} is a run of adapters; wanted all weights. Export it "
            "(launch/export.py, without --adapter) and give that folder as model.path"
        )
    note = run / "init_from.json"
    noted = json.loads(first(lambda: note.read_text() if note.is_file() else '{"step": null}'))
    saved = abstract_params(replace(config, param_dtype=settings.model.param_dtype), mesh)
    step, params = load_params(source / "checkpoints", saved, noted["step"])
    if writes():
        write_json(note, {"run": settings.init_from, "step": step})
    kind = jnp.dtype(config.param_dtype)  # another one under adapters
    return jax.tree.map(lambda x: x if x.dtype == kind else x.astype(kind), params)


def leave_model(start: Start, folder: Path, settings: Settings) -> None:
    """Config and tokenizer of the run's model: its checkpoints can be read without its start."""
    hf.write_config(
        start.config, folder, tokenizer=start.tokenizer, dtype=settings.model.param_dtype
    )


def model_of_run(run: Folder, settings: Settings) -> tuple[ModelConfig, Tokenizer]:
    """What `leave_model` left, for export and probes."""
    folder, model = run / "model", settings.model
    config = hf.read_config(
        folder, dtype=model.dtype, param_dtype=model.param_dtype, remat=model.remat
    )
    with hf.local_copy(folder) as small_files:
        return config, load_tokenizer(small_files, settings.prompts.enable_thinking)
