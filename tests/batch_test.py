"""Credits -> pieces -> rows -> arrays: nothing is lost or doubled, a row is as TrainBatch says."""

from collections.abc import Sequence
from itertools import count

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from seirenes_jax import knobs
from seirenes_jax.batch import Piece, Plan, Row, fill, lay_out, pack, pieces
from seirenes_jax.errors import ConfigError
from seirenes_jax.state import TrainBatch
from seirenes_jax.types import Ask, Credit, Messages, Name, Rollout

STREAMS = ("clean", "adversary", "robust")
LONGEST_PROMPT, LONGEST_ANSWER = 7, 9


def plan(
    row_tokens: int = 32, rows: int = 2, *, aggregate: str = "token", temperature: float = 0.7
) -> Plan:
    return Plan(
        streams=STREAMS, limits=(20, 10, 20), advantage=knobs.Advantage("mean", 1e-6, 0.9),
        loss=knobs.Loss("ppo", 0.2, 0.2, aggregate, 0.0, "k3", 0.0, False, 2.0),
        knobs=knobs.Streams(
            {"clean": 1.0, "adversary": 0.5, "robust": 2.0}, dict.fromkeys(STREAMS, 0),
            2, False, True, 0,
        ),
        batch=knobs.Batch(row_tokens=row_tokens, rows=rows), temperature=temperature,
    )  # fmt: skip


@st.composite
def made_groups(draw: st.DrawFn) -> list[list[Piece]]:
    """Groups in which no two tokens are equal, so that each can be found again."""
    ids = count(1)
    lengths = st.integers(1, LONGEST_ANSWER)
    sizes = draw(
        st.lists(
            st.tuples(st.integers(1, LONGEST_PROMPT), st.lists(lengths, min_size=1, max_size=6)),
            min_size=1, max_size=6,
        )
    )  # fmt: skip
    groups = []
    for stream, (prompt_length, answers) in enumerate(sizes):
        prompt = tuple(next(ids) for _ in range(prompt_length))
        group = []
        for n in answers:
            tokens = np.array([next(ids) for _ in range(n)], np.int32)
            mark = float(tokens[0])  # every number of a piece is told apart by its first token
            group.append(Piece(prompt, tokens, -tokens / 8, mark, mark / 4, stream % 3))
        groups.append(group)
    return groups


ROW_TOKENS = st.integers(LONGEST_PROMPT - 1 + LONGEST_ANSWER, 60)


@given(made_groups(), ROW_TOKENS)
def test_packing_keeps_every_piece_once_and_fits(
    groups: list[list[Piece]], row_tokens: int
) -> None:
    rows = pack(groups, row_tokens)
    placed = [piece for row in rows for _, taken in row for piece in taken]
    assert sorted(map(id, placed)) == sorted(id(piece) for group in groups for piece in group)
    for row in rows:
        assert 0 < used(row) <= row_tokens
        prompts = [prompt for prompt, _ in row]
        assert len(set(prompts)) == len(prompts)  # stored once a row
        for prompt, taken in row:
            assert taken and all(piece.prompt == prompt for piece in taken)
    # A group that fits one row stands in one row.
    for group in groups:
        holds = [row for row in rows if group[0].prompt in [prompt for prompt, _ in row]]
        if used([(group[0].prompt, group)]) <= row_tokens:
            assert len(holds) == 1
    assert pack(groups, row_tokens) == rows  # and again the same


def used(row: Row) -> int:
    return sum(len(prompt) - 1 + sum(len(p.tokens) for p in taken) for prompt, taken in row)


@given(made_groups(), ROW_TOKENS, st.integers(1, 4))
def test_the_arrays_are_what_the_rows_say(
    groups: list[list[Piece]], row_tokens: int, rows: int
) -> None:
    packed = pack(groups, row_tokens)
    micros = lay_out(packed, plan(row_tokens, rows))
    assert len(micros) == -(-len(packed) // rows)
    by_first = {int(piece.tokens[0]): piece for group in groups for piece in group}
    for micro in micros:
        assert micro.tokens_BT.shape == (rows, row_tokens)
        assert micro.temperature == np.float32(0.7)
        for b in range(rows):
            for segment in range(1, int(micro.segments_BT[b].max()) + 1):  # no number is left out
                check_segment(micro, b, segment, by_first)
        assert_blank_outside(micro)
    assert by_first == {}  # each completion was seen, once


def check_segment(micro: TrainBatch, b: int, segment: int, by_first: dict[int, Piece]) -> None:
    """A stored prompt, or one completion behind its own prompt."""
    here = np.flatnonzero(micro.segments_BT[b] == segment)
    assert np.array_equal(here, np.arange(here[0], here[-1] + 1))
    if not micro.train_BT[b, here[0]]:
        assert not np.any(micro.train_BT[b, here]) and not np.any(micro.prefix_BT[b, here])
        np.testing.assert_array_equal(micro.positions_BT[b, here], np.arange(len(here)))
        return
    piece = by_first.pop(int(micro.targets_BT[b, here[0]]))
    np.testing.assert_array_equal(micro.targets_BT[b, here], piece.tokens)
    np.testing.assert_array_equal(
        micro.tokens_BT[b, here], [piece.prompt[-1], *piece.tokens[:-1]]
    )
    start = len(piece.prompt) - 1
    np.testing.assert_array_equal(
        micro.positions_BT[b, here], np.arange(start, start + len(piece.tokens))
    )
    stored = np.flatnonzero(micro.segments_BT[b] == micro.prefix_BT[b, here[0]])
    if start == 0:  # nothing is stored of a prompt of one token
        assert not np.any(micro.prefix_BT[b, here])
    else:
        assert len(set(micro.prefix_BT[b, here].tolist())) == 1 and stored[-1] < here[0]
        np.testing.assert_array_equal(micro.tokens_BT[b, stored], piece.prompt[:-1])
    for array, value in (
        (micro.train_BT, True), (micro.role_BT, piece.stream), (micro.adv_BT, piece.advantage),
        (micro.weight_BT, piece.weight), (micro.logp_old_BT, piece.logprobs),
    ):  # fmt: skip
        np.testing.assert_array_equal(array[b, here], value)


def assert_blank_outside(micro: TrainBatch) -> None:
    """Prompts and padding carry no weight, advantage or old logprob."""
    for array_BT in (micro.weight_BT, micro.adv_BT, micro.logp_old_BT, micro.targets_BT):
        assert not np.any(np.asarray(array_BT)[~np.asarray(micro.train_BT)])
    padding = np.asarray(micro.segments_BT) == 0
    assert not np.any(np.asarray(micro.tokens_BT)[padding])


def test_the_example_in_the_words_of_train_batch() -> None:
    w, x, y, z, a, b, c, eos = range(2, 10)
    found = [
        Piece(
            (w, x, y, z), np.array(tokens, np.int32), np.zeros(len(tokens), np.float32), 1.0, 1.0, 0
        )
        for tokens in ([a, b, eos], [c, eos])
    ]  # fmt: skip
    batch = fill(pack([found], 10)[:1], knobs.Batch(row_tokens=10, rows=1), temperature=1.0)
    want = {
        "tokens_BT": [w, x, y, z, a, b, z, c], "targets_BT": [0, 0, 0, a, b, eos, c, eos],
        "segments_BT": [1, 1, 1, 2, 2, 2, 3, 3], "prefix_BT": [0, 0, 0, 1, 1, 1, 1, 1],
        "positions_BT": [0, 1, 2, 3, 4, 5, 3, 4], "train_BT": [0, 0, 0, 1, 1, 1, 1, 1],
    }  # fmt: skip
    for name, row in want.items():
        assert np.asarray(getattr(batch, name)[0]).astype(int).tolist() == [*row, 0, 0], name


def test_what_cannot_fit_a_row_is_refused_with_numbers() -> None:
    tokens, logprobs = np.arange(2, 12, dtype=np.int32), np.zeros(10, np.float32)
    piece = Piece((5, 6, 7), tokens, logprobs, 1.0, 1.0, 0)
    assert len(pack([[piece]], 12)) == 1
    with pytest.raises(ConfigError, match=r"prompt of 3 tokens and an answer of 10.*= 11"):
        pack([[piece]], 11)
    with pytest.raises(ConfigError, match="batch.row_tokens"):
        pack([[piece]], 2)


# Credits.


def credit(
    length: int, reward: float, *, stream: str = "clean", peers: str = "g", weight: float = 1.0,
    train_under: Messages | None = None,
) -> Credit:  # fmt: skip
    ask = Ask("reasoner", (("user", "question"),), 1, None, None, 20)
    rollout = Rollout(
        ask, Name("p", 0, "0", 0, 0, 0), "", np.full(length, 3, np.int32),
        np.full(length, -0.5, np.float32), "eos", None, 0,
    )  # fmt: skip
    return Credit(rollout, stream, peers, reward, weight, train_under)


def render(messages: Messages) -> tuple[int, ...]:
    return tuple(map(ord, messages[-1][1]))


def mass(groups: Sequence[Sequence[Piece]]) -> list[float]:
    """Weight times tokens of each stream."""
    found = [0.0] * len(STREAMS)
    for group in groups:
        for piece in group:
            found[piece.stream] += piece.weight * len(piece.tokens)
    return found


@pytest.mark.parametrize("aggregate", ["token", "sequence", "constant"])
def test_each_streams_weight_is_shared_out_over_all_of_its_tokens(aggregate: str) -> None:
    credits = [
        (credit(4, 1.0), credit(12, 0.0)),
        (
            credit(2, 1.0, stream="adversary", peers="a"),
            credit(3, 0.0, stream="adversary", peers="a"),
        ),
        tuple(credit(n, n / 20, stream="robust", peers="r") for n in (1, 5, 19)),
        (credit(7, 1.0, peers="h"), credit(1, 0.0, peers="h")),
    ]  # fmt: skip
    found, _ = pieces(credits, render, plan(aggregate=aggregate), {})
    assert [len(group) for group in found] == [2, 2, 3, 2]
    if aggregate == "constant":  # 1 / (sequences * limit): shorter answers hold less of it
        wanted = [1.0 * 24 / (4 * 20), 0.5 * 5 / (2 * 10), 2.0 * 25 / (3 * 20)]
    else:
        wanted = [1.0, 0.5, 2.0]
    assert mass(found) == pytest.approx(wanted, rel=1e-6)
    if aggregate == "token":
        assert len({piece.weight for group in found for piece in group if piece.stream == 0}) == 1


def test_advantages_are_centred_among_peers_and_carried_along() -> None:
    ((better, worse),), _ = pieces([(credit(3, 1.0), credit(5, 0.0))], render, plan(), {})
    assert (better.advantage, worse.advantage) == (0.5, -0.5)
    assert better.prompt == render((("user", "question"),))
    np.testing.assert_array_equal(better.logprobs, np.full(3, -0.5, np.float32))


def test_what_has_no_weight_is_neither_trained_nor_counted() -> None:
    ghost = credit(50, 9.0, weight=0.0)
    with_ghost, _ = pieces([(credit(3, 1.0), ghost, credit(5, 0.0))], render, plan(), {})
    without, _ = pieces([(credit(3, 1.0), credit(5, 0.0))], render, plan(), {})
    assert [[(p.advantage, p.weight, len(p.tokens)) for p in group] for group in with_ghost] == [
        [(p.advantage, p.weight, len(p.tokens)) for p in group] for group in without
    ]
    assert pieces([(ghost, ghost)], render, plan(), {})[0] == []


def test_a_response_may_be_trained_under_another_prompt() -> None:
    moved = credit(3, 1.0, train_under=(("user", "another"),))
    ((piece, _),), _ = pieces([(moved, credit(5, 0.0, train_under=(("user", "another"),)))],
                              render, plan(), {})  # fmt: skip
    assert piece.prompt == render((("user", "another"),))
