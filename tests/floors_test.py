"""The floors of the house: who may import whom, held as data, and shown able to fail.

A file imports lower floors, and its own floor where no cycle arises. The word wing never imports
jax; a game reaches no device, clock or network; the number wing knows no text, file or clock.
"""

import ast
import functools
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parent.parent
HOUSE = "seirenes_jax"

FLOORS = {
    0: """types errors rng knobs masked advantages optim sampling state board console signals
        clock heap machine packing parent store voice watchdog verify verify.extract verify.equal
        verify.atoms verify.brackets verify.clean verify.compare verify.cursor verify.exact
        verify.lexer verify.measures verify.numeric verify.parser verify.regions verify.ruling
        verify.scalars verify.second verify.tree verify.units verify.wire verify.words""",
    1: """settings cli topologies text hints html analysis report alarm_page games.base losses
        sharding models.config verify.process verify.worker verify.judge problems
        problems.account problems.formats problems.places problems.rows problems.sameness
        problems.sieve hf.hub hf.table fingerprint stored maintenance""",
    2: """tasks tasks.stories tasks.world tasks.texts tasks.tokenizer games.rlvr games.seirenes
        play streams data batch checkpoint models.layers models.lora models.flash
        models.grouped models.grouped_gpu models.grouped_tpu report_page folder gather metrics
        progress mirror compare_page plan_table parcel hosts layout alarms roofline serve.asked
        serve.bodies serve.spoken serve.prompts runs verify.__main__ problems.__main__
        hf.config hf.files""",
    3: "games evidence models.attention models.moe checks hf.reader hf.writer",
    4: "models.decoder",
    5: "models",
    6: "decode step hf",
    7: "sampler warm start base evaluate finish proof",
    8: "journal gear programs footprint cheapest plan serve.engine serve.loading",
    9: "learn handshake replay serve.app serve.listening",
    10: "train serve",
    11: "probe sweep",
}  # fmt: skip
FLOOR = {name: floor for floor, names in FLOORS.items() for name in names.split()}

WORDS = set(
    """types errors rng knobs settings cli text problems hints html analysis report board console
    report_page compare_page folder gather metrics plan_table play streams checks signals games
    tasks verify store mirror stored maintenance runs watchdog alarms alarm_page""".split()
)  # a package stands for all that is in it
NUMBERS = set("masked advantages optim sampling state losses models decode step".split())
JAX = {"jax", "jaxlib", "flax", "optax", "orbax", "grain"}
NOT_PURE = set(
    """os io pathlib shutil tempfile time datetime json pickle socket subprocess threading random
    logging transformers tokenizers sentencepiece""".split()
)
GAMES_MAY = set(
    "types errors rng knobs text hints verify.extract verify.equal games.base".split()
)
GAMES_MAY_OUTSIDE = set(
    "collections dataclasses enum functools itertools math re statistics typing numpy".split()
)
EVAL_MAY = set(
    "types errors rng knobs console verify text problems hints html analysis report cli".split()
)
LAUNCH_MAY = set(
    """cli errors parent settings analysis html data sampler batch hf checkpoint serve plan probe
    proof replay sweep gather train store compare_page runs""".split()
)
LINES, FUNCTION_LINES, LAUNCH_LINES = 400, 60, 60


class Import(NamedTuple):
    """`line` of a file imports `target`, a dotted name; `at_once` = when the file is imported."""

    target: str
    line: int
    at_once: bool


Sources = dict[str, str]  # path in the checkout -> text


def read_tree() -> Sources:
    folders = (HOUSE, "launch", "eval", "configs", "tests")
    files = [file for folder in folders for file in sorted((ROOT / folder).rglob("*.py"))]
    return {file.relative_to(ROOT).as_posix(): file.read_text("utf-8") for file in files}


def module_of(path: str) -> str:
    """seirenes_jax/games/base.py -> seirenes_jax.games.base."""
    return path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")


class Read(NamedTuple):
    """What one file says, read once."""

    imports: tuple[tuple[str, str, int, bool], ...]  # (from, name, line, when the file is imported)
    functions: tuple[tuple[str, int, int], ...]  # (name, line, lines)


@functools.cache
def read(text: str) -> Read:
    found: list[tuple[str, str, int, bool]] = []
    functions: list[tuple[str, int, int]] = []

    def visit(node: ast.AST, at_once: bool) -> None:
        if isinstance(node, ast.Import):
            found.extend((alias.name, "", node.lineno, at_once) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = "." * node.level + (node.module or "")
            found.extend((base, alias.name, node.lineno, at_once) for alias in node.names)
        elif isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            length = (node.end_lineno or node.lineno) - node.lineno + 1
            functions.append((node.name, node.lineno, length))
            at_once = False
        if isinstance(node, (ast.stmt, ast.mod, ast.ExceptHandler, ast.match_case)):
            for inner in ast.iter_child_nodes(node):
                visit(inner, at_once)

    visit(ast.parse(text), True)
    return Read(tuple(found), tuple(functions))


def imports(text: str, modules: set[str]) -> Iterator[Import]:
    """Every import of a file; `from seirenes_jax import hints` is one of seirenes_jax.hints."""
    for base, name, line, at_once in read(text).imports:
        inner = f"{base}.{name}"
        yield Import(inner if inner in modules else base, line, at_once)


def within(name: str, group: set[str]) -> bool:
    """Is it in the group, by itself or through one of its packages?"""
    parts = name.split(".")
    return any(".".join(parts[:n]) in group for n in range(1, len(parts) + 1))


def faults(sources: Sources) -> list[str]:
    """Every breach of the floors in a tree, as `path:line words`."""
    modules = {module_of(path) for path in sources}
    known = {path: list(imports(text, modules)) for path, text in sources.items()}
    found = list(_table(sources))
    for path, its in known.items():
        for one in its:
            found += [f"{path}:{one.line} {words}" for words in _import_faults(path, one)]
    found += _cycles(known)
    found += _jax_behind_words(known)
    for path, text in sources.items():
        found += [f"{path}:{line} {words}" for line, words in _sizes(path, text)]
    return found


def _table(sources: Sources) -> Iterator[str]:
    inside = {module_of(p).removeprefix(f"{HOUSE}.") for p in sources if p.startswith(HOUSE + "/")}
    inside.discard(HOUSE)
    for name in sorted(inside - FLOOR.keys()):
        yield f"{HOUSE}/{name.replace('.', '/')}: it stands on no floor; give it one in FLOORS"
    for name in sorted(FLOOR.keys() - inside):
        yield f"{name}: a floor is kept for it, but there is no such file"
    for path in sources:
        if path.startswith("launch/") and Path(path).stem in sys.stdlib_module_names:
            yield f"{path}: it hides the standard library's {Path(path).stem} from every command"


def _import_faults(path: str, one: Import) -> Iterator[str]:
    top = one.target.split(".")[0]
    room = path.split("/")[0]
    inner = one.target.removeprefix(f"{HOUSE}.") if top == HOUSE else None
    if one.target.startswith("."):
        yield "imports relatively; wanted the whole name"
    if top == "launch":
        yield "imports launch/; nothing may"
    if room == HOUSE:
        if top in ("eval", "tests", "configs", "notebooks"):
            yield f"imports {top}/; the library stands by itself"
        yield from _inside(module_of(path).removeprefix(f"{HOUSE}."), one.target, inner)
    elif room == "eval":
        if top in JAX or top == "tests":
            yield f"imports {top}; eval/ runs without jax"
        if inner is not None and not within(inner, EVAL_MAY):
            yield f"imports {inner}; eval/ may import {', '.join(sorted(EVAL_MAY))}"
    elif room == "launch" and not path.startswith("launch/bench"):
        if inner is not None and inner not in LAUNCH_MAY:
            yield f"imports {inner}; an entry point opens a door and does no work of its own"
    elif room == "configs" and top not in ("configs", "ml_collections"):
        yield f"imports {one.target}; a config is data"


def _inside(name: str, target: str, inner: str | None) -> Iterator[str]:
    top = target.split(".")[0]
    if inner is not None and FLOOR.get(inner, 0) > FLOOR.get(name, len(FLOORS)):
        yield f"imports {inner} of floor {FLOOR[inner]} from floor {FLOOR[name]}"
    if within(name, WORDS) and top in JAX:
        yield f"imports {top}; the word wing never does"
    if within(name, NUMBERS) and top in NOT_PURE:
        yield f"imports {top}; the number wing knows no text, file or clock"
    if name.startswith("games.") and name != "games.base":
        if inner is None and top not in GAMES_MAY_OUTSIDE:
            yield f"imports {top}; a game reaches no device, clock or network"
        if inner is not None and inner not in GAMES_MAY and not inner.startswith("games."):
            yield f"imports {inner}; a game may import {', '.join(sorted(GAMES_MAY))}"


def _cycles(known: dict[str, list[Import]]) -> list[str]:
    """Follow every import, those inside functions too; a way back to where it began is a cycle."""
    paths = {module_of(path): path for path in known}
    state: dict[str, str] = {}
    found: list[str] = []

    def visit(module: str, way: tuple[str, ...]) -> None:
        state[module] = "open"
        for one in known[paths[module]]:
            if one.target not in paths or one.target == module:
                continue
            if state.get(one.target) == "open":
                circle = [*way[way.index(one.target) :], one.target]
                found.append(f"{paths[module]}:{one.line} closes a cycle: {' -> '.join(circle)}")
            elif one.target not in state:
                visit(one.target, (*way, one.target))
        state[module] = "done"

    for module in paths:
        if module not in state:
            visit(module, (module,))
    return found


def _jax_behind_words(known: dict[str, list[Import]]) -> Iterator[str]:
    """Importing a module runs its packages too: what wakes jax may stand rooms away."""
    paths = {module_of(path): path for path in known}

    def way_to_jax(module: str, seen: set[str]) -> list[str] | None:
        seen.add(module)
        for one in known[paths[module]]:
            if not one.at_once:
                continue
            if one.target.split(".")[0] in JAX:
                return [module, one.target]
            parts = one.target.split(".")
            for step in (".".join(parts[:n]) for n in range(1, len(parts) + 1)):
                if step in paths and step not in seen:
                    way = way_to_jax(step, seen)
                    if way is not None:
                        return [module, *way]
        return None

    for module, path in paths.items():
        words = within(module.removeprefix(f"{HOUSE}."), WORDS) and module.startswith(HOUSE)
        if words or path.startswith("eval/"):
            way = way_to_jax(module, set())
            if way is not None:
                yield f"{path} wakes jax: {' -> '.join(way)}"


def _sizes(path: str, text: str) -> Iterator[tuple[int, str]]:
    lines = len(text.splitlines())
    limit = LAUNCH_LINES if path.startswith("launch/") and path.count("/") == 1 else LINES
    if lines > limit:
        yield lines, f"has {lines} lines; at most {limit}"
    for name, line, length in read(text).functions:
        if length > FUNCTION_LINES and not path.startswith("configs/"):  # a list of knobs
            yield line, f"{name} has {length} lines; at most {FUNCTION_LINES}"


@pytest.fixture(scope="module")
def tree() -> Sources:
    return read_tree()


def test_the_house_stands(tree: Sources) -> None:
    assert len(tree) > 80
    assert "\n".join(faults(tree)) == ""


PLANTED = {
    "a lower floor imports a higher one": (
        "seirenes_jax/play.py", "from seirenes_jax.sampler import Sampler", "of floor 7 from"),
    "a word file imports jax": (
        "seirenes_jax/hints.py", "import jax.numpy as jnp", "the word wing never does"),
    "a word file imports jax later": (
        "seirenes_jax/verify/equal.py", "def f():\n    import jax", "the word wing never does"),
    "a word file wakes jax through a package": (
        "seirenes_jax/streams.py", "from seirenes_jax.models.config import ModelConfig",
        "streams.py wakes jax: seirenes_jax.streams -> seirenes_jax.models"),
    "a game reads the clock": ("seirenes_jax/games/rlvr.py", "import time", "no device, clock"),
    "a game reaches a door": (
        "seirenes_jax/games/seirenes.py", "from seirenes_jax.problems import load",
        "a game may import"),
    "a pure file opens files": ("seirenes_jax/losses.py", "import pathlib", "no text, file"),
    "two files import each other": (
        "seirenes_jax/rng.py", "def f():\n    from seirenes_jax import hints", "closes a cycle"),
    "the library imports a launcher": (
        "seirenes_jax/train.py", "import launch.train", "imports launch/; nothing may"),
    "a test imports a launcher": (
        "tests/cli_test.py", "from launch import train", "imports launch/; nothing may"),
    "the library imports its tests": (
        "seirenes_jax/html.py", "import tests.scripted", "stands by itself"),
    "an import is relative": ("seirenes_jax/html.py", "from . import types", "relatively"),
    "a launcher does the work": (
        "launch/export.py", "from seirenes_jax.decode import admit", "opens a door"),
    "a config computes": ("configs/base.py", "import numpy", "a config is data"),
    "eval wakes jax": ("eval/run.py", "import optax", "eval/ runs without jax"),
    "eval reaches a door": (
        "eval/run.py", "from seirenes_jax import checkpoint", "eval/ may import"),
    "a file stands on no floor": ("seirenes_jax/utils.py", "", "stands on no floor"),
    "a launcher hides a library": ("launch/inspect.py", "", "hides the standard library's inspect"),
    "a file is too long": ("seirenes_jax/rng.py", "#\n" * 400, "lines; at most 400"),
    "a launcher is too long": ("launch/train.py", "#\n" * 60, "lines; at most 60"),
    "a function is too long": (
        "seirenes_jax/rng.py", "def f():\n" + "    0\n" * 60, "f has 61 lines; at most 60"),
}  # fmt: skip


@pytest.mark.parametrize("name", PLANTED)
def test_a_planted_violation_is_found(tree: Sources, name: str) -> None:
    path, text, words = PLANTED[name]
    planted = {**tree, path: tree.get(path, "") + "\n" + text + "\n"}
    new = set(faults(planted)) - set(faults(tree))
    assert any(words in fault for fault in new)


def test_a_missing_file_is_found(tree: Sources) -> None:
    left = {path: text for path, text in tree.items() if path != "seirenes_jax/rng.py"}
    assert "rng: a floor is kept for it, but there is no such file" in faults(left)


def test_the_word_wing_really_runs_without_jax(tree: Sources) -> None:
    """Imported for good, in a fresh process. (A __main__ would run.)"""
    inside = [module_of(path) for path in tree if path.startswith(HOUSE + "/")]
    words = [
        name for name in inside
        if within(name.removeprefix(f"{HOUSE}."), WORDS) and not name.endswith(".__main__")
    ]  # fmt: skip
    assert {f"{HOUSE}.play", f"{HOUSE}.games", f"{HOUSE}.verify.judge"} <= set(words)
    code = f"import sys, {', '.join(words)}; print([n for n in {sorted(JAX)} if n in sys.modules])"
    told = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True
    )
    assert told.stdout == "[]\n"
