"""The type of every knob: one frozen section per concern.

Values and reasons stand in configs/base.py.
"""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Shape:
    layers: int
    width: int
    heads: int
    kv_heads: int
    head_dim: int
    ff: int
    rope_theta: float
    tied: bool


@dataclass(frozen=True, slots=True)
class Lora:
    rank: int
    alpha: float
    targets: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Model:
    path: str
    shape: Shape
    dtype: str
    param_dtype: str
    remat: str
    attention: str
    moe: str
    balance: float
    replay_routes: bool
    lora: Lora


@dataclass(frozen=True, slots=True)
class WarmStart:
    steps: int
    batch: int
    lr: float
    seed: int
    problems: int


@dataclass(frozen=True, slots=True)
class Problems:
    path: str
    format: str
    question_column: str
    answer_column: str
    levels: tuple[int, ...]
    decontaminate: tuple[str, ...]
    overlap: float
    checkable: bool
    malformed: int
    mastered_share: float


@dataclass(frozen=True, slots=True)
class Rollouts:
    clean: int
    hints: int
    hinted: int


@dataclass(frozen=True, slots=True)
class Tokens:
    prompt: int
    reasoner: int
    adversary: int
    overlong_buffer: int


@dataclass(frozen=True, slots=True)
class Prompts:
    reasoner: str
    adversary: str
    position: str
    frame: str
    enable_thinking: str


@dataclass(frozen=True, slots=True)
class Adversary:
    reward: str
    margin: float
    policy: str


@dataclass(frozen=True, slots=True)
class Hints:
    source: str
    gates: tuple[str, ...]
    min_tokens: int
    max_tokens: int
    copy_share: float


@dataclass(frozen=True, slots=True)
class Streams:
    weights: Mapping[str, float]
    groups: Mapping[str, int]
    max_age: int
    pool_hints: bool
    train_hinted: bool
    resample_rounds: int


@dataclass(frozen=True, slots=True)
class Advantage:
    kind: str
    eps: float
    ema_decay: float


@dataclass(frozen=True, slots=True)
class Loss:
    kind: str
    clip_low: float
    clip_high: float
    aggregate: str
    kl: float
    kl_kind: str
    entropy: float
    rescore: bool
    tis_cap: float


@dataclass(frozen=True, slots=True)
class Optimizer:
    lr: float
    warmup_steps: int
    schedule: str
    weight_decay: float
    b1: float
    b2: float
    eps: float
    clip: float
    moments: str


@dataclass(frozen=True, slots=True)
class Numbers:
    loss: float
    gradient: float
    ratio: float
    logprob: float
    in_a_row: int
    keep: int
    most_mib: float
    probe_max: float
    probe_mean: float


@dataclass(frozen=True, slots=True)
class Sampler:
    slots: int
    chunk: int
    temperature: float
    top_k: int
    top_p: float


@dataclass(frozen=True, slots=True)
class Batch:
    row_tokens: int
    rows: int


@dataclass(frozen=True, slots=True)
class Mesh:
    data: int
    fsdp: int
    tensor: int
    expert: int
    sequence: int


@dataclass(frozen=True, slots=True)
class Decode:
    hosts: int
    tensor: int
    expert: int


@dataclass(frozen=True, slots=True)
class Checkpoint:
    every: int
    keep: int
    keep_every: int
    verify: bool
    on_failure: str
    journal: bool


@dataclass(frozen=True, slots=True)
class Preempt:
    grace_s: float


@dataclass(frozen=True, slots=True)
class Watchdog:
    factor: float
    floor_s: float
    laps: int
    hard_s: float


@dataclass(frozen=True, slots=True)
class Eval:
    every: int
    problems: int
    final_problems: int


@dataclass(frozen=True, slots=True)
class Budget:
    tokens: int


@dataclass(frozen=True, slots=True)
class Report:
    rollouts_per_step: int
    wandb: str


@dataclass(frozen=True, slots=True)
class Alarms:
    window: int
    leaked: float
    passed_leaks: float
    gate_failures: float
    duplicates: float
    template: float
    adversary_solves: float
    reasoner_hints: float
    unreadable: float
    timeout: float
    live: Mapping[str, float]
    entropy: float
    longer: float
    shorter: float


@dataclass(frozen=True, slots=True)
class Judge:
    workers: int
    deadline_s: float
    memory_gib: float


@dataclass(frozen=True, slots=True)
class Profile:
    steps: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Settings:
    seed: int
    steps: int
    game: str
    init_from: str
    problems_per_step: int
    model: Model
    warm_start: WarmStart
    problems: Problems
    rollouts: Rollouts
    tokens: Tokens
    prompts: Prompts
    adversary: Adversary
    hints: Hints
    streams: Streams
    advantage: Advantage
    loss: Loss
    optimizer: Optimizer
    numbers: Numbers
    sampler: Sampler
    batch: Batch
    mesh: Mesh
    decode: Decode
    checkpoint: Checkpoint
    preempt: Preempt
    watchdog: Watchdog
    eval: Eval
    budget: Budget
    report: Report
    alarms: Alarms
    judge: Judge
    profile: Profile


# On resume these may differ from the stored config: how long, how seen, where; never what.
FREE_ON_RESUME = (
    "steps", "budget.tokens", "checkpoint", "eval", "report", "profile", "preempt", "mesh",
    "decode", "watchdog", "alarms",
)  # fmt: skip

LORA_TARGETS = ("q", "k", "v", "o", "gate", "up", "down")

CHOICES: dict[str, tuple[str, ...]] = {
    "game": ("seirenes", "rlvr"),
    "model.dtype": ("float32", "bfloat16"),
    "model.param_dtype": ("float32", "bfloat16"),
    "model.remat": ("none", "dots", "full", "offload"),
    "model.attention": ("auto", "xla", "splash", "cudnn"),
    "model.moe": ("auto", "plain", "mosaic", "triton"),
    "problems.format": ("", "dapo", "deepmath", "openr1", "math", "polaris", "plain", "gsm8k"),
    "prompts.enable_thinking": ("", "true", "false"),
    "prompts.position": ("append", "prepend", "system"),
    "prompts.frame": ("hint", "note", "context", "bare"),
    "adversary.reward": ("clip", "indicator", "linear"),
    "adversary.policy": ("live", "frozen", "untrained"),
    "hints.source": ("adversary", "shuffled", "rule", "random", "correct"),
    "advantage.kind": ("group", "mean", "loo", "whiten", "hybrid", "ema"),
    "loss.kind": ("ppo", "gspo", "cispo"),
    "loss.aggregate": ("token", "sequence", "constant"),
    "loss.kl_kind": ("k1", "k2", "k3"),
    "checkpoint.on_failure": ("stop", "go_on"),
    "optimizer.schedule": ("constant", "cosine", "linear"),
    "optimizer.moments": ("float32", "bfloat16"),
}
