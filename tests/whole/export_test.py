"""The export speaks as our sampler does: greedy text through AutoModelForCausalLM, in float32."""

from pathlib import Path

import pytest

from seirenes_jax import hf, hints, settings
from seirenes_jax.sampler import Sampler
from seirenes_jax.sampling import GREEDY
from seirenes_jax.sharding import make_mesh
from seirenes_jax.start import abstract_params
from seirenes_jax.tasks import world
from seirenes_jax.text import load_tokenizer
from seirenes_jax.types import LIVE, REASONER, Ask, Name
from tests.whole import mini

torch = pytest.importorskip("torch")
PROMPTS, LIMIT = 20, 56


def test_greedy_text(undisturbed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    monkeypatch.chdir(mini.ROOT)
    knobs, _ = settings.load("configs/tiny.py", ["sampler.slots=16"])
    folder = undisturbed / "hf"
    prompts = [
        hints.reasoner_messages(problem.question, None, knobs.prompts)
        for problem in world.problems("heldout", PROMPTS, 1)
    ]

    config = hf.read_config(folder, dtype="float32", param_dtype="float32", remat="none")
    params = hf.load(folder, config, abstract_params(config, make_mesh(knobs.mesh)))
    sampler = Sampler(
        config, load_tokenizer(folder), knobs.sampler, seed=0, prompt_tokens=knobs.tokens.prompt,
        answer_tokens=LIMIT,
    )  # fmt: skip
    sampler.load(LIVE, params, 0)
    sampler.begin(0, GREEDY)
    asks = [
        (Name(str(i), 0, "greedy", 0, 0, 0), Ask(REASONER, messages, 1, None, None, LIMIT))
        for i, messages in enumerate(prompts)
    ]
    ours = [answer.text for answer in sampler.generate(asks)]

    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    theirs = []
    for messages in prompts:
        turns = [{"role": role, "content": content} for role, content in messages]
        ids = tokenizer.apply_chat_template(
            turns, add_generation_prompt=True, return_tensors="pt", return_dict=True
        )
        out = model.generate(**ids, max_new_tokens=LIMIT, do_sample=False)
        said = out[0, ids["input_ids"].shape[1] :]
        theirs.append(tokenizer.decode(said, skip_special_tokens=True))
    assert len({*ours}) > PROMPTS // 2  # it says something, and not always the same
    assert ours == theirs
