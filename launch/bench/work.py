"""The work that every system is given: models, requests to answer, sequences to learn from.

NumPy alone: it is read in every system's process, whatever else that has.
"""

import math
from dataclasses import dataclass

import numpy as np

PAD, EOS = 0, 1
# The optimizer's other knobs are those of configs/base.py, written out for the peers.
LEARNING_RATE, B1, B2, EPS, DECAY, CLIP_NORM = 1e-6, 0.9, 0.95, 1e-8, 0.1, 1.0
CLIP_LOW, CLIP_HIGH = 0.2, 0.28


class Wrong(Exception):
    """A system did not do the work: its time means nothing."""


@dataclass(frozen=True)
class Shape:
    """A Qwen3; heads of 64, untied."""

    layers: int
    width: int
    heads: int
    kv_heads: int
    ff: int
    vocab: int
    head_dim: int = 64
    rope_theta: float = 1_000_000.0  # the one Tunix uses whatever it is told

    @property
    def layer_weights(self) -> int:
        """Matrix entries of all layers that a token is multiplied with."""
        attention = 2 * self.width * self.head_dim * (self.heads + self.kv_heads)
        return self.layers * (attention + 3 * self.width * self.ff)

    def about(self) -> str:
        millions = (self.layer_weights + 2 * self.head_weights) / 1e6
        return (
            f"{self.layers} layers, width {self.width}, heads {self.heads}/{self.kv_heads}, "
            f"vocabulary {self.vocab}, {millions:.1f}M weights"
        )

    @property
    def head_weights(self) -> int:
        return self.width * self.vocab

    @property
    def first_word(self) -> int:
        """Prompts are made of tokens from here on; no answer is."""
        return self.vocab // 2

    def attention_flops(self, context: int) -> int:
        """Scores and weighted sum of one token that looks at `context` keys, forward."""
        return 4 * self.layers * self.heads * self.head_dim * context


SHAPES = {
    "XS": Shape(layers=2, width=128, heads=2, kv_heads=1, ff=256, vocab=256),  # of --quick
    "S": Shape(layers=4, width=256, heads=4, kv_heads=2, ff=768, vocab=4096),
    "M": Shape(layers=8, width=512, heads=8, kv_heads=4, ff=1536, vocab=16384),
}


@dataclass(frozen=True)
class Requests:
    """`groups` prompts of `prompt` tokens, `group` answers each; the lengths of the answers."""

    shape: str
    groups: int
    group: int
    slots: int
    prompt: int
    longest: int
    median: float = 48.0  # of a lognormal with sigma .9; 0: all are `longest`

    def lengths(self) -> np.ndarray:
        count = self.groups * self.group
        if not self.median:
            return np.full(count, self.longest)
        drawn = np.random.RandomState(1).normal(size=count)
        found = np.round(np.exp(np.log(self.median) + 0.9 * drawn))
        clipped: np.ndarray = np.clip(found, 4, self.longest).astype(np.int64)
        return clipped

    def prompts(self) -> list[list[int]]:
        """A group shares all but the last token, which says how long the answer is."""
        rng = np.random.default_rng(2)
        shape = SHAPES[self.shape]
        assert self.longest + 1 < shape.first_word, "an answer would be taken for a prompt"
        shared = rng.integers(shape.first_word, shape.vocab, (self.groups, self.prompt - 1))
        lengths = self.lengths().reshape(self.groups, self.group)
        return [
            [*map(int, shared[g]), int(length) + 1]
            for g in range(self.groups) for length in lengths[g]
        ]  # fmt: skip

    def useful_flops(self) -> float:
        """Forward, of the tokens that count: prompts once a group, then every answer."""
        s = SHAPES[self.shape]
        each = 2 * (s.layer_weights + s.head_weights)
        lengths, stored = self.lengths(), self.prompt - 1
        total = self.groups * (
            2 * s.layer_weights * stored + s.attention_flops(stored) * stored / 2
        )
        for n in map(int, lengths):
            total += n * each + s.attention_flops(1) * (n * stored + n * (n + 1) / 2)
        return float(total)

    @property
    def tokens(self) -> int:
        """Those that count: of the answers, up to and with the end."""
        return int(self.lengths().sum())

    def about(self) -> str:
        s = SHAPES[self.shape]
        lengths = self.lengths()
        long = f"{lengths.mean():.0f} tokens on average, {lengths.max()} at most"
        if not self.median:
            long = f"{self.longest} tokens each"
        return (
            f"{self.groups * self.group} answers to {self.groups} prompts of {self.prompt} tokens, "
            f"{long}; {self.slots} slots; model {self.shape}: {s.about()}."
        )

    def static_use(self, batch: int) -> float:
        """Share of slot-steps that draw a token that counts, where a batch runs until its longest
        answer ends."""
        lengths = self.lengths()
        batches = [lengths[i : i + batch] for i in range(0, len(lengths), batch)]
        return float(lengths.sum() / sum(len(b) * b.max() for b in batches))

    def refuse_wrong(self, answers: list[list[int]]) -> None:
        """Every answer is the countdown it must be; else the time means nothing."""
        for index, (said, length) in enumerate(zip(answers, self.lengths(), strict=True)):
            wanted = [*range(int(length), 1, -1), EOS]
            if list(said) != wanted:
                raise Wrong(
                    f"answer {index}: got {len(said)} tokens, {list(said)[:9]}...; wanted "
                    f"{len(wanted)}, {wanted[:9]}..."
                )


DECODE = {
    "decode-quick": Requests("XS", groups=3, group=4, slots=4, prompt=16, longest=32, median=12),
    # Long tail: mean 71 of at most 256, as rollouts are.
    "decode-S": Requests("S", groups=32, group=8, slots=64, prompt=48, longest=256),
    "decode-M": Requests("M", groups=8, group=8, slots=16, prompt=48, longest=256),
    # Honest cases: nothing to refill, nothing to share; long prompts; long answers.
    "decode-constant": Requests(
        "S", groups=16, group=8, slots=64, prompt=48, longest=128, median=0
    ),
    "decode-plain": Requests("S", groups=64, group=1, slots=64, prompt=48, longest=128, median=0),
    "decode-prefix": Requests("S", groups=8, group=16, slots=64, prompt=512, longest=256),
    "decode-single": Requests("S", groups=256, group=1, slots=64, prompt=48, longest=256),
    "decode-long": Requests("S", groups=16, group=8, slots=64, prompt=48, longest=1024, median=192),
}


@dataclass(frozen=True)
class Padded:
    """Rows of PAD but for the tokens; nothing else is PAD."""

    prompts: np.ndarray  # int32 [rows, longest prompt]
    answers: np.ndarray  # int32 [rows, longest answer]
    advantages: np.ndarray  # float32 [rows]

    @property
    def use(self) -> float:
        """Share of the positions that hold a token."""
        return float((np.mean(self.prompts != PAD) * self.prompts.shape[1]
                      + np.mean(self.answers != PAD) * self.answers.shape[1])
                     / (self.prompts.shape[1] + self.answers.shape[1]))  # fmt: skip


@dataclass(frozen=True)
class Lessons:
    """Sequences to learn from, for one update: policy gradient, clipped, no KL, AdamW."""

    shape: str
    groups: int
    group: int
    prompt: int  # at most
    longest: int
    full: bool  # every prompt and answer as long as may be

    @property
    def old_logprob(self) -> float:
        """Of every token: a uniform policy's, which is near the untrained model's own. The model's
        own would make the loss the same whatever it says; so it hangs on every logprob, and the
        clip binds here and there."""
        return -math.log(SHAPES[self.shape].vocab)

    def sequences(self) -> list[tuple[list[int], list[list[int]], list[float]]]:
        """Of each group: prompt, answers, advantages (mean 0, as in GRPO)."""
        rng = np.random.default_rng(3)
        vocab = SHAPES[self.shape].vocab
        out = []
        for _ in range(self.groups):
            size = (
                self.prompt if self.full else int(rng.integers(self.prompt // 2, self.prompt + 1))
            )
            drawn = np.round(np.exp(np.log(48) + 0.9 * rng.normal(size=self.group)))
            lengths = np.clip(drawn, 4, self.longest).astype(int)
            if self.full:
                lengths = np.full(self.group, self.longest)
            prompt = rng.integers(2, vocab, size).tolist()
            answers = [rng.integers(2, vocab, n).tolist() for n in lengths]
            rewards = rng.integers(0, 2, self.group).astype(float)
            spread = (rewards - rewards.mean()) / (rewards.std() + 1e-6)
            out.append((prompt, answers, spread.tolist()))
        return out

    def padded(self) -> "Padded":
        """As the peers train: one row a sequence, prompts filled up on the left."""
        sequences = self.sequences()
        rows = [
            (p, a, adv)
            for p, answers, advs in sequences
            for a, adv in zip(answers, advs, strict=True)
        ]
        P, A = max(len(p) for p, _, _ in rows), max(len(a) for _, a, _ in rows)
        prompts, answers = np.zeros((len(rows), P), np.int32), np.zeros((len(rows), A), np.int32)
        for i, (prompt, answer, _) in enumerate(rows):
            prompts[i, P - len(prompt) :], answers[i, : len(answer)] = prompt, answer
        advantages = np.array([adv for _, _, adv in rows], np.float32)
        return Padded(prompts, answers, advantages)

    def about(self) -> str:
        s, sequences = SHAPES[self.shape], self.sequences()
        lengths = [len(answer) for _, answers, _ in sequences for answer in answers]
        return (
            f"One update on {len(lengths)} sequences, {self.groups} prompts of at most "
            f"{self.prompt} tokens with {self.group} answers each of {np.mean(lengths):.0f} tokens "
            f"on average, {max(lengths)} at most; model {self.shape}: {s.about()}."
        )

    def useful_flops(self) -> float:
        """Forward and backward (twice that), prompts once a group, the head at answers alone."""
        s = SHAPES[self.shape]
        total = 0.0
        for prompt, answers, _ in self.sequences():
            stored = len(prompt) - 1
            total += 2 * s.layer_weights * stored + s.attention_flops(1) * stored * stored / 2
            for n in map(len, answers):
                total += 2 * (s.layer_weights + s.head_weights) * n
                total += s.attention_flops(1) * (n * stored + n * (n + 1) / 2)
        return 3 * total

    @property
    def tokens(self) -> int:
        """Of all sequences, as one counts them: prompt and answer of each."""
        return sum(
            len(prompt) + len(answer)
            for prompt, answers, _ in self.sequences() for answer in answers
        )  # fmt: skip


TRAIN = {
    "train-quick": Lessons("XS", groups=3, group=4, prompt=16, longest=32, full=False),
    "train-S": Lessons("S", groups=8, group=8, prompt=64, longest=256, full=False),
    "train-M": Lessons("M", groups=4, group=8, prompt=64, longest=256, full=False),
    # Honest case: full rows, nothing to share.
    "train-plain": Lessons("S", groups=32, group=1, prompt=64, longest=256, full=True),
}
