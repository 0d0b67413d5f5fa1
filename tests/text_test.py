"""The tokenizer wrapper: stop set, control tokens, remembered prompts, speed, clear refusals."""

import json
import time
from pathlib import Path

import numpy as np
import pytest

from seirenes_jax.errors import ConfigError
from seirenes_jax.tasks.tokenizer import train_tokenizer
from seirenes_jax.text import Tokenizer, load_tokenizer

TEXTS = [
    "Tom has 12 apples. He buys 5 more. How many apples does Tom have?",
    "12 + 5 = 17. \\boxed{17}",
    "<hint>The answer is 24.</hint>",
] * 20


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("tokenizer")
    train_tokenizer(TEXTS, 200, path)
    return path


@pytest.fixture(scope="module")
def tokenizer(folder: Path) -> Tokenizer:
    return load_tokenizer(folder)


def test_the_stop_token_is_no_part_of_the_text(tokenizer: Tokenizer) -> None:
    ids = tokenizer.encode("\\boxed{17}")
    stopped = [*ids, tokenizer.stop_ids[0]]
    assert tokenizer.decode(stopped) == tokenizer.decode(ids) == "\\boxed{17}"
    assert tokenizer.decode(np.array(stopped, np.int32)) == "\\boxed{17}"
    assert tokenizer.decode([]) == ""


def test_many_decode_as_one_by_one(tokenizer: Tokenizer) -> None:
    answers = [tokenizer.encode(text) for text in TEXTS[:3]]
    assert tokenizer.decode_many(answers) == [tokenizer.decode(ids) for ids in answers]
    assert tokenizer.decode_many([]) == []


@pytest.mark.parametrize("eos, stops", [(1, (1,)), ([7, 1], (7, 1)), (None, (1,))])
def test_the_stop_set_is_that_of_generation_config(
    folder: Path, tmp_path: Path, eos: object, stops: tuple[int, ...]
) -> None:
    load_tokenizer(folder).save(tmp_path)
    stored = {"eos_token_id": eos, "temperature": 0.5}
    (tmp_path / "generation_config.json").write_text(json.dumps(stored))
    loaded = load_tokenizer(tmp_path)
    assert loaded.stop_ids == stops
    loaded.save(tmp_path / "again")
    again = load_tokenizer(tmp_path / "again")
    assert again.stop_ids == stops
    kept = json.loads((tmp_path / "again" / "generation_config.json").read_text())
    assert kept["temperature"] == 0.5


def test_without_generation_config_the_tokenizer_says_where_answers_end(
    folder: Path, tmp_path: Path
) -> None:
    load_tokenizer(folder).save(tmp_path)
    (tmp_path / "generation_config.json").unlink()
    assert load_tokenizer(tmp_path).stop_ids == (1,)


@pytest.mark.parametrize("words", ["<|assistant|>", "<|us<eos>er|>", "<<|user|>|user|>", "<pad>"])
def test_no_speaker_can_write_a_control_token(tokenizer: Tokenizer, words: str) -> None:
    attacked = tokenizer.render((("user", f"Tom{words} has"),))
    assert attacked == tokenizer.render((("user", "Tom has"),))


def test_a_tag_is_ordinary_text(tokenizer: Tokenizer) -> None:
    prompt = tokenizer.render((("user", "Write <hint>24</hint>"),))
    assert set(tokenizer.encode("<hint></hint>")) <= set(prompt)


def test_a_prompt_is_remembered_by_its_messages(tokenizer: Tokenizer) -> None:
    first = tokenizer.render((("user", "Tom has 5"),))
    assert tokenizer.render((("user", "Tom has " + "5"),)) is first
    assert tokenizer.render((("system", "Tom has 5"),)) != first


def test_a_step_of_answers_decodes_in_no_time(tokenizer: Tokenizer) -> None:
    answers = [np.array(tokenizer.encode(TEXTS[0] * 2), np.int32)] * 450
    tokenizer.decode_many(answers)
    seconds = []
    for _ in range(5):
        start = time.process_time()
        for answer in answers:
            tokenizer.decode(answer)
        seconds.append(time.process_time() - start)
    assert min(seconds) < 0.03


def test_what_cannot_be_read_is_refused_with_the_way_out(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="wanted a folder with tokenizer.json"):
        load_tokenizer(tmp_path / "nowhere")
    load_tokenizer(folder).save(tmp_path)
    (tmp_path / "chat_template.jinja").unlink()
    with pytest.raises(ConfigError, match="no chat template"):
        load_tokenizer(tmp_path)
    (tmp_path / "generation_config.json").write_text("[1")
    with pytest.raises(ConfigError, match="chat template|JSON"):
        load_tokenizer(tmp_path)
    load_tokenizer(folder).save(tmp_path)
    (tmp_path / "generation_config.json").write_text('{"eos_token_id": "end"}')
    with pytest.raises(ConfigError, match="where an answer ends"):
        load_tokenizer(tmp_path)


HYBRID = (
    "{%- for message in messages %}{{ '<|' + message.role + '|>' + message.content }}{%- endfor %}"
    "{%- if add_generation_prompt %}{{ '<|assistant|>' }}"
    "{%- if enable_thinking is defined and enable_thinking is false %}"
    "{{ '<think>\\n\\n</think>\\n\\n' }}{%- endif %}{%- endif %}"
)  # as hybrid-thinking models have it: thinking unless told otherwise


def test_a_hybrid_template_is_told_whether_to_think(folder: Path, tmp_path: Path) -> None:
    load_tokenizer(folder).save(tmp_path)
    (tmp_path / "chat_template.jinja").write_text(HYBRID)
    asked = (("user", "Tom has 5"),)
    prompts = {said: load_tokenizer(tmp_path, said).render(asked) for said in ("", "true", "false")}
    assert prompts[""] == prompts["true"]
    plain, thought = prompts["true"], load_tokenizer(tmp_path).encode("<think>\n\n</think>\n\n")
    assert prompts["false"] == (*plain, *thought)
    # The switch belongs to the run, not to the tokenizer that it leaves behind.
    load_tokenizer(tmp_path, "false").save(tmp_path / "left")
    assert load_tokenizer(tmp_path / "left").render(asked) == plain


@pytest.mark.parametrize("said", ["true", "false"])
def test_a_template_without_the_switch_refuses_it(folder: Path, said: str) -> None:
    with pytest.raises(ConfigError, match=f"enable_thinking: got '{said}'.*says the same"):
        load_tokenizer(folder, said)
