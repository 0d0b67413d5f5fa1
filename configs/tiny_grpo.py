"""The same-token baseline of configs/tiny.py: GRPO on clean tries alone.

    python launch/train.py --config=configs/tiny_grpo.py

As many sequences a question as the game of configs/tiny.py has in all; the run ends when as many
tokens have been generated as that game generates. Machine and time are those of configs/tiny.py.

Expected: clean accuracy as with configs/tiny.py; under wrong hints about what it was at the start,
for nothing here teaches the model to doubt a hint.
"""

from ml_collections import ConfigDict

from configs import tiny


def get_config() -> ConfigDict:
    c = tiny.get_config()
    r = c.rollouts
    with c.unlocked():
        c.game = "rlvr"
        r.clean, r.hints, r.hinted = r.clean + r.hints + r.hints * r.hinted, 0, 0
        c.budget.tokens = 3_380_000  # what configs/tiny.py generates in its steps
        c.steps = 1000  # more than the budget allows
    return c
