"""Tokens as they come against all of them at once: the same text, cut at the first stop."""

from hypothesis import given
from hypothesis import strategies as st

from seirenes_jax.serve.spoken import Spoken
from seirenes_jax.text import Tokenizer

LETTERS = ["a", "b", "ab", "ba", "\u00e9", " "]
# One letter in two halves, as tokens of bytes are: 10 then 11 is one sign.
HALVES = {10: b"\xe2\x82", 11: b"\xac", 12: b"\xff"}
END = 9


def decode_many(answers: list[list[int]]) -> list[str]:
    """A made-up vocabulary of bytes, as large ones are."""
    return [
        b"".join(HALVES[i] if i in HALVES else LETTERS[i].encode() for i in ids)
        .decode("utf-8", "replace")
        for ids in answers
    ]  # fmt: skip


ids = st.lists(st.sampled_from([*range(len(LETTERS)), *HALVES]), max_size=30)
stops = st.lists(st.text("ab \u00e9\u20ac", min_size=1, max_size=4), max_size=3)


def cut(text: str, ends: list[str]) -> str:
    found = [at for end in ends if (at := text.find(end)) >= 0]
    return text[: min(found)] if found else text


def heard(spoken: Spoken, tokens: list[int], step: int) -> list[str]:
    """What was given after every `step` tokens, and at the end."""
    given_ = []
    for at in range(0, len(tokens), step):
        stopped = spoken.feed(tokens[at : at + step])
        given_.append(spoken.take())
        if stopped:
            break
    spoken.close()
    return [*given_, spoken.take()]


@given(tokens=ids, ends=stops, step=st.integers(1, 7), ended=st.booleans())
def test_pieces_make_the_whole_text_up_to_the_first_stop(
    tokens: list[int], ends: list[str], step: int, ended: bool
) -> None:
    spoken = Spoken(decode_many, [END], ends)
    given_ = heard(spoken, tokens + [END] * ended, step)
    wanted = cut(decode_many([tokens])[0], ends)
    assert "".join(given_) == spoken.text == "".join(spoken.pieces) == wanted
    assert spoken.stopped == (wanted != decode_many([tokens])[0])
    so_far = ""
    for part in given_[:-1]:  # nothing is ever taken back
        so_far += part
        assert wanted.startswith(so_far)


@given(tokens=ids, ends=stops)
def test_no_token_after_the_stop_is_counted(tokens: list[int], ends: list[str]) -> None:
    spoken = Spoken(decode_many, [END], ends)
    if not spoken.feed(tokens):
        return
    count = len(spoken.pieces)
    assert spoken.drawn == tokens[:count]
    before = decode_many([tokens[: count - 1]])[0].rstrip("\ufffd")
    assert not any(end in before for end in ends)


@given(data=st.data())
def test_of_a_real_tokenizer_too(tokenizer: Tokenizer, data: st.DataObject) -> None:
    words = data.draw(st.lists(st.integers(0, 511), max_size=40))
    said = [token for token in words if token not in tokenizer.stop_ids]
    text = tokenizer.decode(said)
    if "\ufffd" in text:  # broken bytes may change what was said before them: no stream can know
        return
    spoken = Spoken(tokenizer.decode_many, tokenizer.stop_ids, ())
    assert "".join(heard(spoken, said, 3)) == text
