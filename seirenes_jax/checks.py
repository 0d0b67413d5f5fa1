"""Every budget of a config that can be checked with arithmetic, before a device is touched."""

from seirenes_jax import hints
from seirenes_jax.errors import ConfigError
from seirenes_jax.games import GAMES
from seirenes_jax.knobs import Settings
from seirenes_jax.settings import lookup

POSITIVE = (
    "problems_per_step", "rollouts.clean", "tokens.prompt", "tokens.reasoner", "tokens.adversary",
    "streams.max_age", "sampler.slots", "sampler.chunk", "batch.row_tokens", "batch.rows",
    "checkpoint.every", "checkpoint.keep", "eval.problems", "eval.final_problems", "judge.workers",
)  # fmt: skip
NEVER_NEGATIVE = ("steps", "rollouts.hints", "eval.every", "budget.tokens", "optimizer.lr")


def check(settings: Settings) -> None:
    """ConfigError on the first thing that cannot work, with the numbers."""
    for path in POSITIVE:
        if lookup(settings, path) < 1:
            raise ConfigError(f"--config.{path}: got {lookup(settings, path)}; wanted at least 1")
    for path in NEVER_NEGATIVE:
        if lookup(settings, path) < 0:
            raise ConfigError(f"--config.{path}: got {lookup(settings, path)}; wanted 0 or more")
    hints.check_gates(settings.hints)
    _check_distribution(settings)
    _check_room(settings)
    _check_streams(settings)
    _check_mesh(settings)


def _check_distribution(settings: Settings) -> None:
    sampler = settings.sampler
    if sampler.top_k != 0 or sampler.top_p != 1.0:
        raise ConfigError(
            f"sampler.top_k = {sampler.top_k}, sampler.top_p = {sampler.top_p}: training compares "
            "logprobs of the whole distribution; use top_k = 0 and top_p = 1.0"
        )
    if not sampler.temperature > 0:
        raise ConfigError(
            f"sampler.temperature: got {sampler.temperature}; training samples, wanted above 0"
        )


def _check_room(settings: Settings) -> None:
    tokens = settings.tokens
    longest = tokens.prompt + max(tokens.reasoner, tokens.adversary)
    if settings.batch.row_tokens < longest:
        raise ConfigError(
            f"batch.row_tokens: got {settings.batch.row_tokens}; a prompt and its answer take up to "
            f"tokens.prompt + max(tokens.reasoner, tokens.adversary) = {longest}; raise it"
        )
    if settings.hints.max_tokens >= tokens.prompt:
        raise ConfigError(
            f"hints.max_tokens: got {settings.hints.max_tokens}; a hint stands in the prompt beside "
            f"the question, and tokens.prompt is {tokens.prompt}; lower the one or raise the other"
        )
    if tokens.overlong_buffer > tokens.reasoner:
        raise ConfigError(
            f"tokens.overlong_buffer: got {tokens.overlong_buffer}; wanted at most tokens.reasoner = "
            f"{tokens.reasoner}"
        )


def _check_streams(settings: Settings) -> None:
    names = GAMES[settings.game].streams
    for knob in ("weights", "groups"):
        table = lookup(settings, f"streams.{knob}")
        missing = [name for name in names if name not in table]
        if missing:
            raise ConfigError(f"streams.{knob}: {', '.join(missing)} missing; {settings.game} has it")
    if settings.streams.max_age > 4:
        raise ConfigError(f"streams.max_age: got {settings.streams.max_age}; wanted at most 4")
    if settings.game == "seirenes" and min(settings.rollouts.hints, settings.rollouts.hinted) < 1:
        raise ConfigError(
            f"rollouts.hints = {settings.rollouts.hints}, rollouts.hinted = "
            f"{settings.rollouts.hinted}: seirenes wanted at least 1 of each; game=rlvr plays without"
        )


def _check_mesh(settings: Settings) -> None:
    mesh = settings.mesh
    rows, shards = settings.batch.rows, mesh.data * mesh.fsdp
    if shards < 1 or mesh.tensor < 1:
        raise ConfigError(f"mesh: got {mesh}; wanted at least 1 along every axis")
    for name, size in (("batch.rows", rows), ("sampler.slots", settings.sampler.slots)):
        if size % shards:
            raise ConfigError(
                f"{name}: got {size}, which does not divide over mesh.data x mesh.fsdp = "
                f"{mesh.data} x {mesh.fsdp} = {shards}; wanted a multiple"
            )
