"""One response against one gold answer: what a worker runs. Imports nothing heavy."""

from seirenes_jax.verify.equal import Unreadable, equal
from seirenes_jax.verify.extract import final_answer

RIGHT, WRONG, UNREADABLE, TIMEOUT = "right", "wrong", "unreadable", "timeout"


def rule(
    gold: str, response: str, fallback: bool = False, tolerance: str | None = None
) -> tuple[str, str | None]:
    """(verdict, extracted answer). No answer is wrong; one that cannot be compared is
    unreadable.
    """
    said = final_answer(response, fallback)
    if said is None:
        return WRONG, None
    try:
        return (RIGHT if equal(gold, said, tolerance) else WRONG), said
    except Unreadable:
        return UNREADABLE, said
