"""The tiny world's tokenizer: the same bytes each time, nothing lost, one token a common word."""

import hashlib
import random
from pathlib import Path

import pytest
import sentencepiece
from transformers import AutoTokenizer, Qwen3Config

from seirenes_jax.errors import DataError
from seirenes_jax.tasks.tokenizer import TAGS, TURNS, train_tokenizer
from seirenes_jax.text import load_tokenizer

NAMES = ("Tom", "Ann", "Ben", "Lucy", "Mia", "Leo", "Eva", "Max")
THINGS = ("apples", "pears", "books", "coins", "marbles", "stamps", "pencils", "shells")


def stories(n: int) -> list[str]:
    draw = random.Random(0)
    texts = []
    for _ in range(n):
        a, b, c = draw.randint(2, 60), draw.randint(2, 30), draw.randint(1, 9)
        name, thing = draw.choice(NAMES), draw.choice(THINGS)
        story = (
            f"{name} has {a} {thing}. He buys {b} more. Then he gives {c} {thing} to a friend. "
            f"How many {thing} does {name} have?"
        )
        texts += [
            story,
            f"{a} + {b} = {a + b}. {a + b} - {c} = {a + b - c}. \\boxed{{{a + b - c}}}",
            f"<hint>The answer is {a + b - c + 1}.</hint>",
            f"{story}\nHint: {name} really has {b} {thing}.\nThink, then answer in \\boxed{{}}.",
        ]
    return texts


CORPUS = stories(300)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("tokenizer")
    train_tokenizer(CORPUS, 400, path)
    return path


def digests(folder: Path) -> dict[str, str]:
    return {f.name: hashlib.sha256(f.read_bytes()).hexdigest() for f in sorted(folder.iterdir())}


def test_same_texts_give_the_same_bytes(folder: Path, tmp_path: Path) -> None:
    train_tokenizer(CORPUS, 400, tmp_path / "again")
    assert digests(folder) == digests(tmp_path / "again")
    train_tokenizer(CORPUS[:-40], 120, tmp_path / "other")
    assert digests(folder) != digests(tmp_path / "other")


def test_ids_are_those_of_sentencepiece(folder: Path) -> None:
    pieces = sentencepiece.SentencePieceProcessor(model_file=str(folder / "sentencepiece.model"))
    ours = load_tokenizer(folder)
    odd = ["", " ", "  Tom  has\n\n12  apples ", "Tommy hasn't 7", "☃☃ snow ☃ Tom", "}}</hint>{"]
    for text in CORPUS + odd:
        assert ours.encode(text) == pieces.encode(text), text


def test_decoding_gives_back_what_was_encoded(folder: Path) -> None:
    tokenizer = load_tokenizer(folder)
    spaced = [" Tom", "Tom ", "a  b", "\nTom\n", "<hint> Tom</hint> has", "3 4", ""]
    for text in CORPUS + spaced:
        assert tokenizer.decode(tokenizer.encode(text)) == text


def test_words_digits_tags_and_turns_are_single_tokens(folder: Path) -> None:
    tokenizer = load_tokenizer(folder)
    for word in (" apples", " marbles", " Tom", " friend", " answer", "Tom", *TAGS, *TURNS):
        assert tokenizer.count(word) == 1, word
    assert tokenizer.count("4096") == 4
    assert tokenizer.count("\\boxed{17}") == 4
    assert len(set(map(tuple, (tokenizer.encode(str(d)) for d in range(10))))) == 10


def test_the_vocabulary_keeps_its_limit_and_stops_at_what_the_corpus_admits(
    folder: Path, tmp_path: Path
) -> None:
    assert load_tokenizer(folder).vocab_size <= 400
    train_tokenizer(["ab ab"], 400, tmp_path)
    assert load_tokenizer(tmp_path).vocab_size < 40


def test_the_template_marks_each_turn_with_one_token(folder: Path) -> None:
    tokenizer = load_tokenizer(folder)
    system, user, assistant = (tokenizer.encode(turn)[0] for turn in TURNS)
    said = tokenizer.encode("Tom has 12 apples.")
    expected = (system, *tokenizer.encode("Think"), user, *said, assistant)
    assert tokenizer.render((("system", "Think"), ("user", "Tom has 12 apples."))) == expected
    several = (("user", "Tom"), ("assistant", "Ann"), ("user", "Tom"))
    tom, ann = tokenizer.encode("Tom"), tokenizer.encode("Ann")
    stop = tokenizer.stop_ids[0]
    assert tokenizer.render(several) == (user, *tom, assistant, *ann, stop, user, *tom, assistant)


def test_a_qwen3_export_loads_the_same_tokenizer(folder: Path, tmp_path: Path) -> None:
    """AutoTokenizer picks a class by the model's type too; the vocabulary must survive that."""
    ours = load_tokenizer(folder)
    ours.save(tmp_path)
    Qwen3Config(vocab_size=ours.vocab_size).save_pretrained(tmp_path)
    theirs = AutoTokenizer.from_pretrained(str(tmp_path))
    for text in CORPUS[:40]:
        assert theirs.encode(text) == ours.encode(text)
        assert theirs.decode(ours.encode(text)) == text
    turns = [{"role": "user", "content": CORPUS[0]}]
    rendered = theirs.apply_chat_template(turns, add_generation_prompt=True, return_dict=False)
    assert tuple(rendered) == ours.render((("user", CORPUS[0]),))
    assert theirs.eos_token_id == ours.stop_ids[0] and theirs.pad_token_id == ours.pad_id


def test_an_empty_corpus_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="empty corpus"):
        train_tokenizer(["", " "], 400, tmp_path)
