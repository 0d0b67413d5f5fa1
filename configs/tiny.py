"""The whole game on a laptop: Seirenes on the embedded tiny world.

    python launch/train.py --config=configs/tiny.py

A 200,000-parameter decoder, no network, no downloaded weights, no accelerator.
"""

from ml_collections import ConfigDict

from configs import base


def get_config() -> ConfigDict:
    c = base.get_config()
    with c.unlocked():
        c.steps = 240
        c.problems_per_step = 16
        c.model.dtype = "float32"
        c.warm_start.steps = 2000
        c.warm_start.batch = 24
        c.warm_start.problems = 60_000
        c.warm_start.lr = 6e-3
        c.warm_start.seed = 1
        c.rollouts.clean, c.rollouts.hints, c.rollouts.hinted = 8, 4, 4
        c.tokens.prompt, c.tokens.reasoner, c.tokens.adversary = 104, 64, 40
        c.prompts.reasoner = "{question}\nSolve."
        c.prompts.adversary = "{question}\nMislead."
        c.hints.gates = ("tag", "length", "leak", "copy")
        c.hints.min_tokens, c.hints.max_tokens = 2, 36
        c.optimizer.lr = 1e-4
        # Enough for the Adversary to find what is rare at the start; at 2 it begins to outrun so
        # small a Reasoner (docs/claims.md).
        c.streams.weights.adversary = 1.5
        c.numbers.probe_max, c.numbers.probe_mean = 1e-3, 1e-4  # float32 throughout
        c.sampler.slots, c.sampler.chunk = 192, 8
        c.batch.row_tokens, c.batch.rows = 256, 16
        c.checkpoint.every = 10
        c.alarms.live.clean = 0.0  # most questions are right eight times from the start
        c.eval.every, c.eval.problems, c.eval.final_problems = 25, 128, 500
        c.judge.workers = 1
    return c
