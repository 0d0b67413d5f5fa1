"""Drives many games at once over one `ask` function; knows no model.

One round, again and again until every game has returned:

    ask(opened)   the sampler takes the new asks, decodes one chunk, gives what finished
    verdicts      of what finished a round ago come in: judged while this chunk was decoded
    submit        what finished now goes to the judge
    move          every generator whose turn is complete goes on, and opens new asks

No barrier between problems or roles. Everything happens in the order of problems and of their
trees, so the order in which samples finish inside a chunk changes nothing.
"""

from collections import Counter
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Protocol

from seirenes_jax.errors import PlayError
from seirenes_jax.games.base import Context, Game, Note
from seirenes_jax.types import Ask, Credit, Name, Problem, Rollout, Verdict
from seirenes_jax.watchdog import Watch, unwatched

Asker = Callable[[list[tuple[Name, Ask]]], list[Rollout]]
"""Takes newly opened asks under their names (sample 0), decodes on, returns what finished.
Verdicts are None. It is called again while samples are out; most calls return nothing."""


class Judge(Protocol):
    """What `play` needs of verify.judge: hand over now, fetch later."""

    def submit(self, cases: Sequence[tuple[str, str]], /) -> Any: ...
    def collect(self, ticket: Any, /) -> list[Verdict]: ...
    def waits_for(self) -> str: ...


@dataclass(frozen=True, slots=True)
class Counts:
    """What was drawn in one play, by role, with or without a credit."""

    samples: Mapping[str, int]
    tokens: Mapping[str, int]
    cut: Mapping[str, int]  # samples stopped by the token limit
    verdicts: Mapping[str, int]
    gates: Mapping[str, int]  # failed gates of hints
    rounds: int


@dataclass(frozen=True, slots=True)
class Played:
    """The outcome, in the order of the problems."""

    credits: tuple[tuple[Credit, ...], ...]
    notes: tuple[Note, ...]
    counts: Counts


@dataclass(slots=True, eq=False)
class _Player:
    """A generator in play, and what its turn still waits for."""

    seat: int  # which problem
    path: tuple[tuple[int, int], ...]  # (turn, item) of each ancestor
    moves: Generator[Any, Any, Any]
    parent: "_Player | None" = None
    turn: int = -1
    results: list[Any] = field(default_factory=list)
    missing: int = 0

    @property
    def words(self) -> str:
        """Name.turn: turn 1 of the child that turn 0 opened as item 2 is `0.2/1`."""
        return "".join(f"{turn}.{item}/" for turn, item in self.path) + str(self.turn)


@dataclass(slots=True, eq=False)
class _Out:
    """An ask whose answers are not all in."""

    player: _Player
    item: int
    ask: Ask
    answers: list[Rollout | None]
    missing: int


@dataclass(slots=True, eq=False)
class _Table:
    """All that is on the table during one play."""

    problems: Sequence[tuple[Problem, int]]
    out: dict[Name, _Out] = field(default_factory=dict)
    opened: list[tuple[Name, Ask]] = field(default_factory=list)
    decoding: int = 0  # samples in the sampler's hands
    returned: dict[int, Any] = field(default_factory=dict)

    def where(self, player: _Player) -> str:
        return f"problem {self.problems[player.seat][0].id!r}, turn {player.words}"

    def oldest(self) -> str:
        """What has been asked for longest, and how much is out."""
        out = sum(one.missing for one in list(self.out.values()))
        for name, one in list(self.out.items()):
            return (
                f"{out} samples are out, oldest: problem {name.problem!r} visit {name.visit} turn "
                f"{name.turn}, {one.ask.role}, {one.missing} of {one.ask.n} missing"
            )
        return "no sample is out"


def play(
    problems: Sequence[tuple[Problem, int]],
    game: Game,
    context: Context,
    *,
    ask: Asker,
    judge: Judge,
    watch: Watch = unwatched,
) -> Played:
    """Play every (problem, visit) to its end; `watch` is told of every wait."""
    _refuse_twins(problems)
    table = _Table(problems)
    ready = [
        _Player(seat, (), game.play(problem, context)) for seat, (problem, _) in enumerate(problems)
    ]
    tally = {name: Counter[str]() for name in ("samples", "tokens", "cut", "verdicts")}
    judging: list[Rollout] = []
    ticket: Any = None
    rounds = idle = 0
    while True:
        for waiting in sorted(ready, key=lambda player: (player.seat, player.path)):
            _move(waiting, table)
        if not table.out:
            break
        rounds += 1
        with watch("chunk", table.oldest):
            finished = _call(ask, table)
        idle = 0 if finished or judging else idle + 1
        _refuse_idling(idle, table)
        final: list[Rollout] = []
        if judging:
            with watch("judge", partial(_awaited, judging, judge)):
                final = _judged(judging, judge.collect(ticket))
        final += [rollout for rollout in finished if not _needs_judge(rollout)]
        judging = [rollout for rollout in finished if _needs_judge(rollout)]
        if judging:
            ticket = judge.submit([(str(each.ask.answer), each.text) for each in judging])
        ready = [player for rollout in final if (player := _deliver(rollout, table))]
        _count(tally, finished, final)
    credits, notes = _results(table)
    gates = Counter(gate for note in notes for hint in note["hints"] for gate in hint["gates"])
    return Played(credits, notes, Counts(**tally, gates=gates, rounds=rounds))


def _move(player: _Player | None, table: _Table) -> None:
    """Resume a generator, and after its end its parent, until each waits for something."""
    while player is not None and player.missing == 0:
        try:
            moves = player.moves
            items = next(moves) if player.turn < 0 else moves.send(player.results)
        except StopIteration as end:
            player = _end(player, end.value, table)
        except Exception as error:
            error.add_note(f"raised by the game of {table.where(player)}")
            raise
        else:
            _open(player, items, table)


def _end(player: _Player, value: Any, table: _Table) -> _Player | None:
    """Hand what a generator returned to its parent, or take it off the table."""
    if player.parent is None:
        table.returned[player.seat] = value
        return None
    player.parent.results[player.path[-1][1]] = value
    player.parent.missing -= 1
    return player.parent


def _open(player: _Player, items: Any, table: _Table) -> None:
    """Open one turn: its asks go out, its children start."""
    problem, visit = table.problems[player.seat]
    player.turn += 1
    if not isinstance(items, list):
        raise PlayError(f"{table.where(player)}: the game yielded {items!r}; wanted a list")
    player.results = [None] * len(items)
    player.missing = len(items) + 1  # one more, lest a child that ends at once move us on too early
    for index, item in enumerate(items):
        if isinstance(item, Ask):
            _refuse_bad_ask(item, table.where(player))
            name = Name(problem.id, visit, player.words, index, attempt=0, sample=0)
            table.out[name] = _Out(player, index, item, [None] * item.n, item.n)
            table.opened.append((name, item))
            table.decoding += item.n
        elif isinstance(item, Generator):
            path = (*player.path, (player.turn, index))
            _move(_Player(player.seat, path, item, player), table)
        else:
            raise PlayError(
                f"{table.where(player)}: item {index} is {item!r}; wanted an Ask or a generator"
            )
    player.missing -= 1


def _call(ask: Asker, table: _Table) -> list[Rollout]:
    """One call of the sampler; what it gives back is checked against what it was asked."""
    if not table.decoding:
        return []  # only verdicts are awaited
    opened, table.opened = table.opened, []
    finished = ask(opened)
    for rollout in finished:
        name = replace(rollout.name, sample=0)
        if name not in table.out:
            raise PlayError(
                f"problem {name.problem!r}: the sampler answered {rollout.name}, which nobody asked"
                " or which was answered before; wanted the name an ask was opened under"
            )
        out, sample = table.out[name], rollout.name.sample
        if not 0 <= sample < out.ask.n or out.answers[sample] is not None:
            raise PlayError(
                f"problem {name.problem!r}: the sampler gave sample {sample} of {name} twice, or"
                f" beyond the {out.ask.n} that were asked; wanted each of 0..{out.ask.n - 1} once"
            )
        out.answers[sample] = rollout
        table.decoding -= 1
    return finished


def _awaited(judging: Sequence[Rollout], judge: Judge) -> str:
    name = judging[0].name
    return f"{len(judging)} verdicts, first of problem {name.problem!r}; {judge.waits_for()}"


def _needs_judge(rollout: Rollout) -> bool:
    """Unjudged asks come back at once; so does an answer cut at its limit: that one is wrong."""
    return rollout.ask.judge is not None and rollout.stop != "length"


def _judged(rollouts: Sequence[Rollout], verdicts: Sequence[Verdict]) -> list[Rollout]:
    return [
        replace(rollout, verdict=verdict)
        for rollout, verdict in zip(rollouts, verdicts, strict=True)
    ]


def _deliver(rollout: Rollout, table: _Table) -> _Player | None:
    """Put a final answer in its place; the player, if this was the last thing it waited for."""
    if rollout.ask.judge is not None and rollout.verdict is None:
        rollout = replace(rollout, verdict=Verdict.WRONG)
    name = replace(rollout.name, sample=0)
    out = table.out[name]
    out.answers[rollout.name.sample] = rollout
    out.missing -= 1
    if out.missing:
        return None
    del table.out[name]
    out.player.results[out.item] = out.answers
    out.player.missing -= 1
    return None if out.player.missing else out.player


def _results(table: _Table) -> tuple[tuple[tuple[Credit, ...], ...], tuple[Note, ...]]:
    credits, notes = [], []
    for seat, (problem, _) in enumerate(table.problems):
        value = table.returned[seat]
        if not (isinstance(value, tuple) and len(value) == 2):
            raise PlayError(
                f"problem {problem.id!r}: the game returned {value!r}; wanted (credits, note)"
            )
        credits.append(tuple(value[0]))
        notes.append(value[1])
    return tuple(credits), tuple(notes)


def _count(
    tally: Mapping[str, Counter[str]], finished: Sequence[Rollout], final: Sequence[Rollout]
) -> None:
    for rollout in finished:
        role = rollout.ask.role
        tally["samples"][role] += 1
        tally["tokens"][role] += len(rollout.tokens)
        tally["cut"][role] += rollout.stop == "length"
    for rollout in final:
        if rollout.ask.judge is not None:
            tally["verdicts"][str(rollout.verdict or Verdict.WRONG)] += 1


def _refuse_twins(problems: Sequence[tuple[Problem, int]]) -> None:
    for (problem_id, visit), times in Counter((p.id, visit) for p, visit in problems).items():
        if times > 1:
            raise PlayError(
                f"problem {problem_id!r} is played {times} times as visit {visit}: both would draw"
                " the same answers; wanted another visit number for each"
            )


def _refuse_bad_ask(ask: Ask, where: str) -> None:
    if ask.n < 1 or ask.max_tokens < 1:
        raise PlayError(
            f"{where}: asked for {ask.n} answers of {ask.max_tokens} tokens; wanted at least 1 of 1"
        )
    if ask.judge is not None and ask.answer is None:
        raise PlayError(f"{where}: the ask names judge {ask.judge!r} but has no answer to judge by")


def _refuse_idling(idle: int, table: _Table) -> None:
    """A sampler decodes or prefills something in every call, so silence has an end."""
    longest = max(out.ask.max_tokens for out in table.out.values())
    if idle > 2 * longest + 100:
        raise PlayError(
            f"the sampler came back {idle} times with nothing although {table.decoding} samples of"
            f" at most {longest} tokens are out, first {next(iter(table.out))}; it has lost them"
        )
