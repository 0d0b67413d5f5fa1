"""What a step costs by arithmetic: operations, bytes read, and the time below which no machine of
its rates can be. Modelled, never measured.

Operations are those of the mathematics: two for a multiply-add, three times the forward pass for
training (twice where only adapters are trained), attention over what a query really sees. What is
computed twice to save memory is in the seconds and not in the operations.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from seirenes_jax.knobs import Settings
from seirenes_jax.models.config import ModelConfig
from seirenes_jax.topologies import Topology

SHARE = 0.28  # of its limit, the mean length of an answer or prompt: rollouts have long tails
BYTES = 2  # of a weight or a cached number in bfloat16


@dataclass(frozen=True, slots=True)
class Work:
    """Of one step, over all devices."""

    prompts: int  # distinct prompts
    prompt: float  # tokens of one
    answers: int
    answer: float  # tokens of one, mean over both roles

    @property
    def drawn(self) -> float:
        return self.answers * self.answer

    @property
    def read(self) -> float:
        """Tokens that training looks at: every prompt once."""
        return self.drawn + self.prompts * self.prompt


@dataclass(frozen=True, slots=True)
class Cost:
    """Of one phase in one step, over all devices."""

    flops: float
    seconds: float


def work(settings: Settings) -> Work:
    """A step in which every group is worth learning from."""
    r, n = settings.rollouts, settings.problems_per_step
    if settings.game == "rlvr":
        solved, hinted, written, prompts = n * r.clean, 0, 0, n
    else:
        solved, hinted, written = n * r.clean, n * r.hints * r.hinted, n * r.hints
        prompts = n * (2 + r.hints)  # the question, the adversary's, one for each hint
    limits = settings.tokens
    tokens = (solved + hinted) * limits.reasoner + written * limits.adversary
    answers = solved + hinted + written
    return Work(prompts, SHARE * limits.prompt, answers, SHARE * tokens / answers)


def layer_weights(c: ModelConfig, *, active: bool) -> float:
    """Numbers in one layer's matrices; of experts all, or those of one token."""
    attention = c.width * c.head_dim * (2 * c.heads + 2 * c.kv_heads)
    if not c.experts:
        return attention + 3 * c.width * c.ff
    experts = c.experts_per_token if active else c.experts
    return attention + c.width * c.experts + 3 * c.width * c.expert_ff * experts


def parameters(c: ModelConfig) -> float:
    """All of them; norms and biases are too small to count."""
    tables = c.vocab * c.width * (1 if c.tied else 2)
    return c.layers * layer_weights(c, active=False) + tables


def forward_flops(c: ModelConfig, tokens: float, seen: float) -> float:
    """A forward pass over so many tokens that each see `seen` others, output head included."""
    matrices = c.layers * layer_weights(c, active=True) + c.vocab * c.width
    attention = 2 * c.layers * c.heads * c.head_dim * seen
    return 2 * tokens * (matrices + attention)


def cached_bytes(c: ModelConfig) -> int:
    """Keys and values of one token."""
    return 2 * c.layers * c.kv_heads * c.head_dim * BYTES


def costs(
    settings: Settings, c: ModelConfig, topology: Topology, *, copies: int
) -> Mapping[str, Cost]:
    """Every phase of a step. `copies`: of the weights in decoding, over all islands."""
    load, kind, n = work(settings), topology.kind, topology.count
    flops_s, bytes_s = n * kind.tflops * 1e12, n * kind.gb_s * 1e9
    seen = load.prompt + load.answer / 2  # of a token drawn, on the mean
    own = (load.drawn * seen + load.prompts * load.prompt**2 / 2) / load.read
    again = {"none": 0.0, "dots": 0.25, "full": 1.0, "offload": 1.0}[settings.model.remat]
    once = forward_flops(c, load.read, own)
    islands = max(1, n // (settings.decode.hosts * topology.a_process))
    decode = _decode(settings, c, load, copies=copies, slots=settings.sampler.slots * islands)
    prefill = forward_flops(c, load.prompts * load.prompt, load.prompt / 2)
    scored = once * (int(settings.loss.rescore) + int(settings.loss.kl != 0.0))
    # Backward: the slopes of what flows through, and those of the weights where these are trained.
    learnt = 2 if settings.model.lora.rank else 3
    # Read as they train by every group of devices that shares one set, written to every copy.
    moved = parameters(c) * ((BYTES if settings.model.lora.rank else 4) + BYTES * copies)
    return {
        "layout": Cost(0.0, moved / bytes_s),
        "prefill": Cost(prefill, prefill / flops_s),
        "decode": Cost(decode[0], max(decode[0] / flops_s, decode[1] / bytes_s)),
        "score": Cost(scored, scored / flops_s),
        "train": Cost(learnt * once, (learnt + again) * once / flops_s),
    }


def _decode(
    settings: Settings, c: ModelConfig, load: Work, *, copies: int, slots: int
) -> tuple[float, float]:
    """Operations and bytes read: the weights once for all slots of a copy, the cache of each."""
    seen = load.prompt + load.answer / 2
    steps = load.drawn / slots
    share = 1.0
    if c.experts:  # of the experts, those that any slot of a copy asks for
        a_copy = slots / copies
        share = 1 - (1 - c.experts_per_token / c.experts) ** a_copy
    attention = c.width * c.head_dim * (2 * c.heads + 2 * c.kv_heads)
    rest = layer_weights(c, active=False) - attention
    matrices = c.layers * (attention + rest * share) + c.vocab * c.width
    read = steps * copies * matrices * BYTES + load.drawn * seen * cached_bytes(c)
    return forward_flops(c, load.drawn, seen), read
