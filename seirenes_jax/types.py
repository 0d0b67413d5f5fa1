"""The words everyone shares: what flows between the two wings. Plain Python, never jax.

Axis key (a suffix on every array name): B rows, T positions, S cache slots along a row, D model
width, F feed-forward width, H query heads, K key/value heads, C head width, E experts,
V vocabulary, N layers.
Example: `hidden_BTD`, `logits_BTV`, `cache_NBKSC`.
"""

from dataclasses import dataclass
from enum import StrEnum

import numpy as np

Messages = tuple[tuple[str, str], ...]  # ((speaker, words), ...): hashable, a key

REASONER = "reasoner"
ADVERSARY = "adversary"
LIVE = "live"  # the policy being trained; any other name is a frozen snapshot


class Verdict(StrEnum):
    """What the judge said. Only `right` and `wrong` may carry a gradient."""

    RIGHT = "right"
    WRONG = "wrong"
    UNREADABLE = "unreadable"
    TIMEOUT = "timeout"


@dataclass(frozen=True, slots=True)
class Problem:
    """One task with a known answer."""

    id: str
    question: str
    answer: str
    source: str
    level: int | None


@dataclass(frozen=True, slots=True)
class Ask:
    """One question of a game to a policy: n answers of at most max_tokens tokens each."""

    role: str  # "reasoner" | "adversary"
    messages: Messages
    n: int
    answer: str | None  # the gold answer, for the judge
    judge: str | None  # name of the judge, or None: come back unjudged
    max_tokens: int
    policy: str = LIVE


@dataclass(frozen=True, slots=True)
class Name:
    """Whose draw this is. Randomness hangs on it, never on order, slots or folders."""

    problem: str
    visit: int  # how often this problem came up before
    turn: str  # path of the generator and its turn: "0", "0.1/0", ...
    ask: int  # which ask of that turn
    attempt: int  # resampled groups count up
    sample: int  # which of the n answers


@dataclass(frozen=True, slots=True, eq=False)
class Rollout:
    """One answer. `logprobs` are those of the distribution that was really sampled from."""

    ask: Ask
    name: Name
    text: str
    tokens: np.ndarray  # int32 [length], the stop token included
    logprobs: np.ndarray  # float32 [length]
    stop: str  # "eos" | "length"
    verdict: Verdict | None
    policy_step: int  # the optimizer step of the weights that wrote it
    # Mixtures of experts alone: the experts of every input (the prompt without its last token,
    # then what decoding was fed), uint8 [inputs, layers, experts per token]. It costs layers x
    # experts per token bytes an input, 384 for 48 layers of 8: 1.5 MB for 4,096 tokens.
    routes: np.ndarray | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Credit:
    """What a game says of one rollout. `peers` names the group it is compared with."""

    rollout: Rollout
    stream: str  # "clean" | "adversary" | "robust" | ...
    peers: str
    reward: float
    weight: float  # 0.0: keep it out of statistics and gradient (unreadable, timed out)
    train_under: Messages | None = None  # train this response under another prompt


Group = tuple[Credit, ...]  # credits of one stream with the same peers
