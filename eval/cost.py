"""What it will cost, before the first request; and a purse that stops the run at its cap."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from eval.study import Job, Question
from seirenes_jax.errors import ConfigError
from seirenes_jax.types import Messages

LETTERS_A_TOKEN = 2.5  # fewer than English has: an estimate errs upwards
TEMPLATE_TOKENS = 20  # what a chat template puts around a prompt
MILLION = 1_000_000

Count = Callable[[str], int]


def rough(text: str) -> int:
    """Tokens of a text where no tokenizer is at hand."""
    return int(len(text) / LETTERS_A_TOKEN) + 1


def prompt_tokens(messages: Messages, count: Count) -> int:
    return sum(count(words) for _, words in messages) + TEMPLATE_TOKENS


@dataclass(slots=True)
class Purse:
    """Dollars: prices are for a million tokens. Without prices nothing is counted."""

    price_in: float
    price_out: float
    cap: float | None
    spent: float = 0.0
    busy: int = 0  # requests under way
    _reserved: float = 0.0

    def cost(self, tokens_in: float, tokens_out: float) -> float:
        return (tokens_in * self.price_in + tokens_out * self.price_out) / MILLION

    def reserve(self, amount: float) -> bool:
        """Set aside what a request may cost at most; False where the cap would be passed."""
        if self.cap is not None and self.spent + self._reserved + amount > self.cap * (1 + 1e-9):
            return False
        self._reserved += amount
        self.busy += 1
        return True

    def settle(self, reserved: float, paid: float) -> None:
        """The request is over and has cost this much."""
        self._reserved -= reserved
        self.busy -= 1
        self.spent += paid


def worst(job: Job, purse: Purse, count: Count, max_tokens: int) -> float:
    """Dollars a request can cost: every answer as long as it may be."""
    return purse.cost(prompt_tokens(job.question.messages, count), max_tokens * job.count)


def estimate(
    asked: Sequence[tuple[Question, int]], purse: Purse, *, count: Count, expect: int, requests: int
) -> tuple[float, str]:
    """Dollars for these questions (with so many samples each) at `expect` tokens an answer."""
    samples = sum(n for _, n in asked)
    tokens_in = sum(
        prompt_tokens(question.messages, count) * -(-n // requests) for question, n in asked
    )
    tokens_out = samples * expect
    dollars = purse.cost(tokens_in, tokens_out)
    words = (
        f"{samples:,} answers: {tokens_in:,} prompt tokens, at {expect:,} tokens an answer "
        f"{tokens_out:,} more"
    )
    if purse.price_in or purse.price_out:
        words += f"; ${dollars:,.2f}"
        words += "" if purse.cap is None else f" of at most ${purse.cap:,.2f}"
    return dollars, words


def check(dollars: float, purse: Purse) -> None:
    """Refuse before anything is asked."""
    if purse.cap is not None and purse.spent + dollars > purse.cap * (1 + 1e-9):
        already = f", ${purse.spent:,.2f} is spent already" if purse.spent else ""
        raise ConfigError(
            f"--max_cost_usd={purse.cap:g}: this would cost about ${dollars:,.2f}{already}; "
            "nothing was asked. Ask for less (--limit, --n, --max_tokens), raise the cap, or say "
            "with --expect_tokens how long an answer is on average (the cap holds all the same)"
        )
