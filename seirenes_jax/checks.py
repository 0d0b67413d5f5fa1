"""Every budget of a config that can be checked with arithmetic, before a device is touched."""

import math
from collections.abc import Mapping

from seirenes_jax import hints
from seirenes_jax.errors import ConfigError
from seirenes_jax.games import GAMES
from seirenes_jax.knobs import LORA_TARGETS, Settings
from seirenes_jax.settings import lookup

INF = math.inf
TINIEST = math.ulp(0.0)  # from here on = above 0
RANGES: Mapping[tuple[float, float], tuple[str, ...]] = {  # both ends belong to it
    (1, INF): (
        "problems_per_step", "rollouts.clean", "tokens.prompt", "tokens.reasoner",
        "tokens.adversary", "streams.max_age", "sampler.slots", "sampler.chunk", "batch.row_tokens",
        "batch.rows", "checkpoint.every", "checkpoint.keep", "eval.problems", "eval.final_problems",
        "judge.workers", "decode.hosts", "decode.tensor",
        "decode.expert", "warm_start.batch", "warm_start.problems", "model.shape.layers",
        "model.shape.width", "model.shape.heads", "model.shape.kv_heads", "model.shape.head_dim",
        "model.shape.ff", "watchdog.factor", "watchdog.laps", "numbers.in_a_row", "numbers.keep",
        "alarms.window",
    ),
    (0, INF): (
        "steps", "rollouts.hints", "rollouts.hinted", "tokens.overlong_buffer", "hints.min_tokens",
        "streams.resample_rounds", "loss.clip_high", "loss.kl", "optimizer.lr",
        "optimizer.warmup_steps", "optimizer.weight_decay", "warm_start.steps", "warm_start.lr",
        "eval.every", "budget.tokens", "checkpoint.keep_every", "report.rollouts_per_step",
        "problems.malformed", "model.balance", "model.lora.rank", "watchdog.hard_s",
        "alarms.longer",
    ),
    (0, 1): ("problems.mastered_share", "problems.overlap", "hints.copy_share", "loss.clip_low",
             "alarms.leaked", "alarms.passed_leaks", "alarms.gate_failures", "alarms.duplicates",
             "alarms.template", "alarms.adversary_solves", "alarms.reasoner_hints",
             "alarms.unreadable", "alarms.timeout", "alarms.entropy", "alarms.shorter",
             "alarms.live.clean", "alarms.live.adversary", "alarms.live.robust"),
    (0, math.nextafter(1, 0)): ("optimizer.b1", "optimizer.b2", "advantage.ema_decay"),
    (TINIEST, INF): (
        "sampler.temperature", "loss.tis_cap", "optimizer.eps", "optimizer.clip", "advantage.eps",
        "judge.deadline_s", "preempt.grace_s", "watchdog.floor_s", "numbers.loss",
        "numbers.gradient", "numbers.ratio", "numbers.logprob", "numbers.most_mib",
        "numbers.probe_max", "numbers.probe_mean",
        "model.shape.rope_theta", "model.lora.alpha",
    ),
}  # fmt: skip


def check(settings: Settings) -> None:
    """ConfigError on the first thing that cannot work, with the numbers."""
    for (low, high), paths in RANGES.items():
        for path in paths:
            if not low <= (got := lookup(settings, path)) <= high:  # not a number fails, too
                raise ConfigError(f"--config.{path}: got {got}; wanted {_range(low, high)}")
    hints.check_gates(settings.hints)
    hints.reasoner_messages("", "", settings.prompts)
    hints.adversary_messages("", settings.prompts)
    _check_distribution(settings)
    _check_shape(settings)
    _check_lora(settings)
    _check_room(settings)
    _check_streams(settings)
    _check_mesh(settings)


def _range(low: float, high: float) -> str:
    """The words of a range: `above 0`, `at least 1`, `from 0 to 1`, `from 0 to below 1`."""
    if high == INF:
        return "above 0" if low == TINIEST else f"at least {low:g}"
    return f"from {low:g} to {'' if high == 1 else 'below '}{round(high):g}"


def _check_distribution(settings: Settings) -> None:
    sampler = settings.sampler
    if sampler.top_k != 0 or sampler.top_p != 1.0:
        raise ConfigError(
            f"sampler.top_k = {sampler.top_k}, sampler.top_p = {sampler.top_p}: training compares "
            "logprobs of the whole distribution; use top_k = 0 and top_p = 1.0"
        )


def _check_shape(settings: Settings) -> None:
    shape = settings.model.shape
    if settings.model.path:
        return
    if shape.heads % shape.kv_heads:
        raise ConfigError(
            f"model.shape.heads: got {shape.heads}, which does not divide over "
            f"model.shape.kv_heads = {shape.kv_heads}; wanted a multiple"
        )
    if shape.head_dim % 2:
        raise ConfigError(
            f"model.shape.head_dim: got {shape.head_dim}; rotary positions need it even"
        )


def _check_lora(settings: Settings) -> None:
    lora = settings.model.lora
    strange = [name for name in lora.targets if name not in LORA_TARGETS]
    if strange or len({*lora.targets}) != len(lora.targets) or not lora.targets:
        raise ConfigError(
            f"model.lora.targets: got {', '.join(map(str, lora.targets)) or 'none'}; wanted some "
            f"of {', '.join(LORA_TARGETS)}, each once (model.lora.rank=0 is without)"
        )
    if lora.rank and settings.model.param_dtype != "float32":
        raise ConfigError(
            f"model.param_dtype: got {settings.model.param_dtype}; adapters are trained in "
            "float32; what they stand on is kept in model.dtype"
        )


def _check_room(settings: Settings) -> None:
    tokens = settings.tokens
    longest = tokens.prompt + max(tokens.reasoner, tokens.adversary)
    if settings.batch.row_tokens < longest:
        raise ConfigError(
            f"batch.row_tokens: got {settings.batch.row_tokens}; a prompt and its answer take "
            f"up to tokens.prompt + max(tokens.reasoner, tokens.adversary) = {longest}; raise it"
        )
    if settings.hints.max_tokens < settings.hints.min_tokens:
        raise ConfigError(
            f"hints.max_tokens: got {settings.hints.max_tokens}; wanted at least "
            f"hints.min_tokens = {settings.hints.min_tokens}"
        )
    if settings.hints.max_tokens >= tokens.prompt:
        raise ConfigError(
            f"hints.max_tokens: got {settings.hints.max_tokens}; a hint stands in the prompt "
            f"beside the question, and tokens.prompt is {tokens.prompt}; lower the one or "
            "raise the other"
        )
    if tokens.overlong_buffer > tokens.reasoner:
        raise ConfigError(
            f"tokens.overlong_buffer: got {tokens.overlong_buffer}; wanted at most "
            f"tokens.reasoner = {tokens.reasoner}"
        )


def _check_streams(settings: Settings) -> None:
    names = GAMES[settings.game].streams
    for knob in ("weights", "groups"):
        table = lookup(settings, f"streams.{knob}")
        missing = [name for name in names if name not in table]
        if missing:
            raise ConfigError(
                f"streams.{knob}: {', '.join(missing)} missing; {settings.game} has it"
            )
        for name, got in table.items():
            if not 0 <= got < INF:
                raise ConfigError(f"--config.streams.{knob}.{name}: got {got}; wanted at least 0")
    if settings.streams.max_age > 4:
        raise ConfigError(f"streams.max_age: got {settings.streams.max_age}; wanted at most 4")
    if settings.game == "seirenes" and min(settings.rollouts.hints, settings.rollouts.hinted) < 1:
        raise ConfigError(
            f"rollouts.hints = {settings.rollouts.hints}, rollouts.hinted = "
            f"{settings.rollouts.hinted}: seirenes wanted at least 1 of each; "
            "game=rlvr plays without"
        )


def _check_mesh(settings: Settings) -> None:
    mesh, batch = settings.mesh, settings.batch
    if min(mesh.data, mesh.fsdp, mesh.tensor, mesh.expert, mesh.sequence) < 1:
        raise ConfigError(f"mesh: got {mesh}; wanted at least 1 along every axis")
    rows = mesh.data * mesh.fsdp * mesh.expert
    if batch.rows % rows:
        raise ConfigError(
            f"batch.rows: got {batch.rows}, which does not divide over mesh.data x mesh.fsdp x "
            f"mesh.expert = {mesh.data} x {mesh.fsdp} x {mesh.expert} = {rows}; wanted a multiple"
        )
    if batch.row_tokens % mesh.sequence:
        raise ConfigError(
            f"batch.row_tokens: got {batch.row_tokens}, which does not divide over mesh.sequence = "
            f"{mesh.sequence}; wanted a multiple"
        )
