"""Benchmarks and files: every schema, counts and hashes, and mistakes that are named."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from eval import load, pins, sources
from eval.benchmarks import BENCHMARKS
from eval.items import Dataset, Item, narrowed, sha256_of
from eval.load import Wanted, load_all
from seirenes_jax.errors import ConfigError, DataError
from tests.eval.runner import write_rows

MADE: dict[str, tuple[dict[str, Any], Item]] = {  # a row as each set has it, and what it becomes
    "aime24": (
        {"id": 60, "problem": "Q", "solution": "S", "answer": "033", "url": "u", "year": "2024"},
        Item("60", "Q", "033", None, {}),
    ),
    "aime26": (
        {"problem_idx": 3, "answer": 277, "problem": "Q"}, Item("3", "Q", "277", None, {}),
    ),
    "hmmt_feb26": (
        {"problem_idx": 9, "answer": "50(1-1/(2^{101}-1))", "problem": "Q",
         "problem_type": ["Algebra", "Number Theory"]},
        Item("9", "Q", "50(1-1/(2^{101}-1))", None, {"problem_type": "Algebra, Number Theory"}),
    ),
    "imo_answerbench": (
        {"Problem ID": "imo-1", "Problem": "Q\n", "Short Answer": "$2^{u-2}$",
         "Category": "Algebra", "Subcategory": "Operation", "Source": "X"},
        Item("imo-1", "Q", "$2^{u-2}$", None, {"Category": "Algebra", "Subcategory": "Operation"}),
    ),
    "olympiadbench": (
        {"id": 1606, "subfield": "Geometry", "context": None, "question": "Q",
         "final_answer": ["$1,3$"], "is_multiple_answer": True, "unit": None,
         "answer_type": "Numerical", "error": "1e-1"},
        Item("1606", "Q", "$1,3$", "1e-1", {"subfield": "Geometry", "answer_type": "Numerical",
                                            "is_multiple_answer": "True"}),
    ),
    "math500": (
        {"problem": "Q", "solution": "S", "answer": "\\frac{1}{2}", "subject": "Algebra",
         "level": 2, "unique_id": "test/a/1.json"},
        Item("test/a/1.json", "Q", "\\frac{1}{2}", None, {"subject": "Algebra", "level": "2"}),
    ),
    "amc23": ({"id": 0, "question": "Q", "answer": 27.0, "url": "u"},
              Item("0", "Q", "27", None, {})),
    "math_perturb_hard": (
        {"problem_id": 1, "problem": "Q", "answer": 4.45, "level": "Level 5", "type": "Algebra",
         "original_split": "test"},
        Item("1", "Q", "4.45", None,
             {"type": "Algebra", "level": "Level 5", "original_split": "test"}),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", MADE)
def test_a_row_of_every_schema(name: str) -> None:
    row, wanted = MADE[name]
    assert BENCHMARKS[name].read(row, "row 1") == wanted


def test_golds_that_stand_inside_a_solution() -> None:
    said = "2 + 3 = <<2+3=5>>5\nSo $1,000 + 5\n#### 1,005"
    assert BENCHMARKS["gsm8k"].read({"question": "Q", "answer": said}, "r").answer == "1005"
    solution = "First \\boxed{2}; no: $v = \\boxed{1e11}$."
    row = {"problem": "Q", "solution": solution, "type": "Physics"}
    found = BENCHMARKS["minerva"].read(row, "r")
    assert found.answer == "1e11" and found.slices == {"type": "Physics"}
    with pytest.raises(DataError, match="####"):
        BENCHMARKS["gsm8k"].read({"question": "Q", "answer": "5"}, "r")


def test_the_context_of_a_question_comes_first() -> None:
    row = {**MADE["olympiadbench"][0], "context": "Let $n$ be even."}
    assert BENCHMARKS["olympiadbench"].read(row, "r").question == "Let $n$ be even.\nQ"


def test_rows_without_a_usable_answer_are_noticed() -> None:
    shifted = {**MADE["imo_answerbench"][0], "Short Answer": "Algebra", "Source": None}
    assert "'Algebra'" in BENCHMARKS["imo_answerbench"].read(shifted, "r").fault
    taken = {"question": "Q", "answer": "None", "perturbation_type": "critical thinking"}
    assert BENCHMARKS["gsm_plus"].read(taken, "r").fault
    assert not BENCHMARKS["gsm_plus"].read({**taken, "answer": "5"}, "r").fault


def test_the_mission_is_covered() -> None:
    names = "aime24 aime25 aime26 imo_answerbench minerva olympiadbench hmmt_feb26 math500 amc23"
    assert set(names.split()) | {"gsm8k", "gsm_plus", "math_perturb_hard"} <= set(BENCHMARKS)
    assert BENCHMARKS["olympiadbench"].rows == (674, 675)
    for one in BENCHMARKS.values():
        assert bool(one.hub[0]) != bool(one.url) and len(one.published) == 7


def wanted(tmp_path: Path, **changes: Any) -> Wanted:
    usual = Wanted(
        datasets=(), data=(), question_column=None, answer_column=None, id_column=None, slices={},
        limit=0, lock=tmp_path / "lock.json",
    )  # fmt: skip
    return replace(usual, **changes)


ROWS = [{"question": f"What is {i}?", "answer": i} for i in range(3)]


def as_jsonl(path: Path) -> None:
    write_rows(path, ROWS)


def as_json(path: Path) -> None:
    path.write_text(json.dumps(ROWS))


def as_csv(path: Path) -> None:
    path.write_text("\ufeffquestion,answer\n" + "".join(f"What is {i}?,{i}\n" for i in range(3)))


def as_parquet(path: Path) -> None:
    import pyarrow
    from pyarrow import parquet

    parquet.write_table(pyarrow.Table.from_pylist(ROWS), path)


@pytest.mark.parametrize("write", [as_jsonl, as_json, as_csv, as_parquet])
def test_the_same_rows_in_any_format_are_the_same_set(
    tmp_path: Path, write: Callable[[Path], None]
) -> None:
    path = tmp_path / f"mine.{write.__name__[3:]}"
    write(path)
    (found,) = load_all(wanted(tmp_path, data=[str(path)]))
    assert found.name == "mine" and [item.answer for item in found.items] == ["0", "1", "2"]
    as_jsonl(tmp_path / "again.jsonl")
    (again,) = load_all(wanted(tmp_path, data=[str(tmp_path / "again.jsonl")]))
    assert again.sha256 == found.sha256 and found.rows == 3


def test_columns_by_name(tmp_path: Path) -> None:
    rows = [{"nr": i, "ask": f"Q{i}", "gold": i, "kind": "a" if i else "b"} for i in range(3)]
    path = write_rows(tmp_path / "x.jsonl", rows)
    columns = {"question_column": "ask", "answer_column": "gold", "id_column": "nr"}
    (found,) = load_all(wanted(tmp_path, data=[f"mine={path}"], **columns))
    assert found.name == "mine"
    assert found.items[1] == Item("1", "Q1", "1", None, {"kind": "a"})
    with pytest.raises(DataError, match="no such column; it has nr, ask, gold, kind"):
        load_all(wanted(tmp_path, data=[str(path)], answer_column="answer"))
    with pytest.raises(DataError, match=r"row 1: no question or problem or prompt"):
        load_all(wanted(tmp_path, data=[str(path)]))


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("a.jsonl", '{"question": "x", "answer": 1}\n{broken', "a.jsonl:2: not a line of JSON"),
        ("a.jsonl", "[1]", "a.jsonl:1: got list"),
        ("a.json", '{"question": 1}', "wanted a list of objects"),
        ("a.txt", "x", "got suffix '.txt'"),
        ("a.parquet", "x", "not a readable .parquet file"),
        ("a.jsonl", "", "holds no rows"),
        ("a.jsonl", '{"question": "x", "answer": true}', "got True; wanted text or a number"),
        ("a.jsonl", '{"id": 1, "question": "x", "answer": 1}\n{"id": 1, "question": "y", '
         '"answer": 1}', "two problems have the id '1'"),
    ],
)  # fmt: skip
def test_files_that_cannot_be_used(tmp_path: Path, name: str, text: str, says: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(DataError, match=says.replace("(", r"\(").replace("[", r"\[")):
        load_all(wanted(tmp_path, data=[str(tmp_path / name)]))


def hmmt(tmp_path: Path, count: int, first: str = "Q0") -> str:
    rows = [{"problem_idx": i, "problem": first if i == 0 else f"Q{i}", "answer": str(i)}
            for i in range(count)]  # fmt: skip
    return f"hmmt_feb26={write_rows(tmp_path / 'hmmt.jsonl', rows)}"


def test_a_hash_is_pinned_at_first_use_and_a_change_is_refused(tmp_path: Path) -> None:
    (first,) = load_all(wanted(tmp_path, data=[hmmt(tmp_path, 33)]))
    assert first.state == pins.FIRST and first.published == "2026-02"
    assert "pinned now" in load.describe(first)
    pinned = json.loads((tmp_path / "lock.json").read_text())
    assert list(pinned["hmmt_feb26"]) == [first.sha256]
    (again,) = load_all(wanted(tmp_path, data=[hmmt(tmp_path, 33)]))
    assert again.state == pins.PINNED
    with pytest.raises(DataError, match="at first use they had"):
        load_all(wanted(tmp_path, data=[hmmt(tmp_path, 33, "other")]))
    with pytest.raises(DataError, match="got 32 rows .* wanted 33"):
        load_all(wanted(tmp_path, data=[hmmt(tmp_path, 32)]))


def test_a_known_hash_needs_no_pin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (first,) = load_all(wanted(tmp_path, data=[hmmt(tmp_path, 33)]))
    known = replace(BENCHMARKS["hmmt_feb26"], sha256=(first.sha256,))
    monkeypatch.setitem(BENCHMARKS, "hmmt_feb26", known)
    (found,) = load_all(wanted(tmp_path, data=[hmmt(tmp_path, 33)], lock=tmp_path / "new.json"))
    assert found.state == pins.KNOWN and not (tmp_path / "new.json").exists()


def test_sets_from_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub

    as_parquet(tmp_path / "0000.parquet")
    asked: list[Any] = []

    class Api:
        def list_repo_files(self, repo: str, *, repo_type: str, revision: str) -> list[str]:
            asked.append((repo, repo_type, revision))
            return ["default/test/0000.parquet", "default/train/0000.parquet", "README.md"]

    def download(repo: str, name: str, *, repo_type: str, revision: str) -> str:
        asked.append(name)
        return str(tmp_path / "0000.parquet")

    monkeypatch.setattr(huggingface_hub, "HfApi", Api)
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    (found,) = load_all(wanted(tmp_path, datasets=["owner/things:default:test"]))
    assert found.name == "things" and found.rows == 3
    assert asked == [("owner/things", "dataset", sources.CONVERTED), "default/test/0000.parquet"]
    with pytest.raises(DataError, match="owner/things:default:train"):
        load_all(wanted(tmp_path, datasets=["owner/things"]))  # two splits: which?


def test_without_network_a_local_file_is_advised(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import huggingface_hub

    def refuse(*_: Any, **__: Any) -> None:
        raise ConnectionError("no route to host")

    monkeypatch.setattr(huggingface_hub.HfApi, "list_repo_files", refuse)
    with pytest.raises(DataError, match=r"no route to host.*--data=NAME=FILE"):
        load_all(wanted(tmp_path, datasets=["aime24"]))


def test_names_are_checked(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="got 'aime'; wanted some of aime24"):
        load_all(wanted(tmp_path, datasets=["aime"]))
    as_jsonl(tmp_path / "a.jsonl")
    with pytest.raises(ConfigError, match="a is named twice"):
        load_all(wanted(tmp_path, data=[str(tmp_path / "a.jsonl")] * 2))


def test_the_hash_is_of_the_whole_set_whatever_is_asked() -> None:
    items = tuple(Item(str(i), f"Q{i}", "1", None, {"level": str(i % 2)}) for i in range(6))
    whole = Dataset("d", items, 6, sha256_of(items), "f", "", "", pins.LOCAL)
    part = narrowed(whole, {"level": "1"}, 2)
    assert [item.id for item in part.items] == ["1", "3"]
    assert (part.sha256, part.rows) == (whole.sha256, 6)
    assert sha256_of(items[:5]) != whole.sha256
    assert "6 rows, 2 of them asked" in load.describe(part)
