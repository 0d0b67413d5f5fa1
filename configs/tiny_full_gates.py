"""configs/tiny.py with all gates: no hint may state an answer or have the problem read otherwise.

    python launch/train.py --config=configs/tiny_full_gates.py

What is left to the Adversary are false steps, traps and noise. Machine and time are those of
configs/tiny.py.

Expected: the share of hints that give a bare wrong answer or ask to ignore a sentence falls to
nothing, and what is not met in training stays a danger.
"""

from ml_collections import ConfigDict

from configs import base, tiny


def get_config() -> ConfigDict:
    c = tiny.get_config()
    with c.unlocked():
        c.hints.gates = base.get_config().hints.gates
    return c
