"""First proof on the tiny world: does self-play earn its keep?

    python launch/ablate.py --config=configs/ablations/tiny_first.py

Machine: any with 2 CPU cores and 4 GiB. Time: 8 cells of a few minutes each, one after another;
the warm start is made once and shared. Stop it at any time; the same command goes on.

Every cell starts from the same weights and stops at the same number of generated tokens.

Expected: under the four families of wrong hints Seirenes ends at least 30 points above GRPO, clean
within 1.5 points of it; on attacks that are rare at the start at least 12 points above a frozen
adversary and above shuffled hints, in both seeds.
"""

BASE = "configs/tiny.py"

COMMON = {
    "budget.tokens": 3_300_000,  # what ends a cell
    "steps": 1000,  # more than the budget allows
    "eval.final_problems": 1000,
}

CELLS = {
    # All checkpoints stay, for the cross-play matrix.
    "seirenes": {"game": "seirenes", "checkpoint.keep": 200},
    # As many sequences a question as Seirenes' 8 clean + 4 hints + 16 hinted.
    "grpo_same_tokens": {"game": "rlvr", "rollouts.clean": 28},
    # The starting weights write the hints, for good.
    "frozen": {"game": "seirenes", "adversary.policy": "frozen"},
    # Its own hints, each under another question: does a hint's aim matter, or its mere presence?
    "shuffled": {"game": "seirenes", "hints.source": "shuffled"},
}

SEEDS = (0, 1)

COMPARE = (
    ("seirenes", "grpo_same_tokens"),
    ("seirenes", "frozen"),
    ("seirenes", "shuffled"),
)

CROSSPLAY = ("seirenes",)
