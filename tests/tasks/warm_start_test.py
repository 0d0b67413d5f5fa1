"""What the tiny world's warm start promises, fixed before any run was compared. Takes minutes.

    python -m pytest -q -m long tests/tasks/warm_start_test.py
"""

import os
from collections import Counter
from pathlib import Path

import pytest

from seirenes_jax import hints, settings
from seirenes_jax.evaluate import FAMILIES, Evaluator, accuracy
from seirenes_jax.folder import cache_dir
from seirenes_jax.hosts import players
from seirenes_jax.report import RunLog
from seirenes_jax.sampler import Sampler
from seirenes_jax.sharding import make_mesh
from seirenes_jax.signals import Stop
from seirenes_jax.start import Start, abstract_params, begin
from seirenes_jax.tasks import texts
from seirenes_jax.types import ADVERSARY, LIVE, Ask, Name
from seirenes_jax.verify.judge import Judge

ROOT = Path(__file__).resolve().parents[2]
PROBLEMS, HINTS = 500, 2_000


def written(sampler: Sampler, start: Start, config: settings.Settings) -> list[str]:
    """2,000 answers of the adversary."""
    sampler.begin(0, 1.0)
    asks = [
        (Name(p.id, 0, "warm", 0, 0, 0),
         Ask(ADVERSARY, hints.adversary_messages(p.question, config.prompts), 4, None, None,
             config.tokens.adversary))
        for p in start.held_out[: HINTS // 4]
    ]  # fmt: skip
    return [rollout.text for rollout in sampler.generate(asks)]


@pytest.mark.long
def test_the_warm_start_solves_trusts_and_misleads(tmp_path: Path) -> None:
    config, _ = settings.load(str(ROOT / "configs" / "tiny.py"))
    cache = cache_dir(os.environ.get("SEIRENES_CACHE", ""))
    with RunLog(tmp_path, steps=1) as log, Judge(1, 1.0, 1.0) as judge:
        start = begin(config, cache, log, check=lambda: None)
        sampler = Sampler(
            start.config, start.tokenizer, config.sampler, seed=0,
            prompt_tokens=config.tokens.prompt, answer_tokens=config.tokens.reasoner,
        )  # fmt: skip
        mesh = make_mesh(config.mesh)
        evaluator = Evaluator(
            config, start, sampler, judge, hosts=players(1, mesh), log=log, stop=Stop(1.0)
        )
        params = start.load_params(abstract_params(start.config, make_mesh(config.mesh)))
        marks, _ = evaluator.everything(params, None, PROBLEMS)
        sampler.load(LIVE, params, 0)  # an evaluation lets go of its weights
        answers = written(sampler, start, config)
    share = {name: accuracy(found) or 0.0 for name, found in marks.items()}
    assert 0.80 <= share["clean"] <= 0.95, share
    for family in FAMILIES:
        assert share["clean"] - share[family] >= 0.15, (family, share)
    for rare in texts.RARE:
        assert share["clean"] - share[rare] >= 0.20, (rare, share)
    sound = [
        hint for text in answers if (hint := hints.parse_hint(text)) is not None
        and hints.well_formed(text, config.hints, start.tokenizer.count)
    ]  # fmt: skip
    assert len(sound) >= 0.95 * len(answers)
    families = Counter(hints.classify(hint)[0] for hint in sound)
    assert set(FAMILIES) <= set(families), families
    kinds = Counter(hints.classify(hint)[1] for hint in sound)
    for rare in texts.RARE:
        assert 0 < kinds[rare] < 0.03 * len(sound), kinds
