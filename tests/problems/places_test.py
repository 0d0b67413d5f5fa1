"""A file, a folder, a pattern, a bucket, the hub: all lead to the same files."""

import shutil
from pathlib import Path
from typing import Any

import huggingface_hub
import pyarrow as pa
import pytest
from etils import epath
from pyarrow import parquet

from seirenes_jax.errors import ConfigError, DataError
from seirenes_jax.problems import load, places, sieve
from tests.bucket import bucket
from tests.problems import made
from tests.problems.made import jsonl, knobs


def names(spec: object) -> list[str]:
    return [file.name for file in places.find(str(spec))]


def test_a_folder_or_pattern_stands_for_its_files_in_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inner = tmp_path / "data"
    inner.mkdir()
    for name in ("b.jsonl", "a.jsonl", "c.txt"):
        jsonl(inner, {"question": f"{name}?", "answer": "1"}, name=name)
    jsonl(tmp_path, {"question": "d?", "answer": "1"}, name="d.jsonl")
    assert names(inner) == ["a.jsonl", "b.jsonl"]
    assert names(tmp_path) == ["d.jsonl", "a.jsonl", "b.jsonl"]
    assert names(inner / "*.jsonl") == names(inner / "[ab].*") == ["a.jsonl", "b.jsonl"]
    assert names(tmp_path / "*/a.jsonl") == ["a.jsonl"]
    monkeypatch.chdir(tmp_path)
    assert names("data") == names("data/*.jsonl") == ["a.jsonl", "b.jsonl"]
    assert names("*.jsonl") == ["d.jsonl"]
    assert [p.question for p in load(str(inner))] == ["a.jsonl?", "b.jsonl?"]


def test_what_is_not_there_or_of_no_known_kind_is_told(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="none.jsonl: no such file; wanted a .jsonl"):
        places.find(str(tmp_path / "none.jsonl"))
    with pytest.raises(DataError, match="no such file"):
        places.find(str(tmp_path / "*.parquet"))
    with pytest.raises(DataError, match="folder holds no file of problems"):
        places.find(str(tmp_path))
    (tmp_path / "set.txt").write_text("a,b")
    with pytest.raises(DataError, match="'.txt'; wanted a .jsonl"):
        places.find(str(tmp_path / "set.txt"))
    with pytest.raises(DataError, match="holds no problems"):
        load(str(jsonl(tmp_path, "", "  ")))


def test_a_bucket_is_read_like_a_disk(tmp_path: Path) -> None:
    rows = [{"question": f"{n}?", "answer": str(n)} for n in range(3)]
    parquet.write_table(pa.Table.from_pylist(rows[:2]), tmp_path / "a.parquet")
    jsonl(tmp_path, rows[2], name="b.jsonl")
    whole = load(str(tmp_path))
    assert [p.answer for p in whole] == ["0", "1", "2"]
    with bucket() as store:
        for file in sorted(tmp_path.iterdir()):
            store.objects[f"bucket/data/{file.name}"] = file.read_bytes()
        store.objects["bucket/bad.jsonl"] = b'{"question": "1?"}\n'
        assert load("gs://bucket/data") == load("gs://bucket/data/*") == whole
        assert load("gs://bucket/data/*.parquet") == load("gs://bucket/data/a.parquet") == whole[:2]
        with pytest.raises(DataError, match="gs://bucket/data/none.jsonl: no such file"):
            load("gs://bucket/data/none.jsonl")
        with pytest.raises(DataError, match="gs://bucket/bad.jsonl:1: answer"):
            load("gs://bucket/bad.jsonl")


def test_from_a_bucket_only_the_columns_that_are_looked_at_are_fetched(tmp_path: Path) -> None:
    rows = [{**made.openr1(f"{n}?", "1"), "solution": str(n) * 40_000} for n in range(100)]
    file = tmp_path / "set.parquet"
    parquet.write_table(pa.Table.from_pylist(rows), file, compression="none", use_dictionary=False)
    with bucket() as store:
        store.objects["bucket/set.parquet"] = file.read_bytes()
        assert len(load("gs://bucket/set.parquet")) == 100
    assert sum(count for _, count in store.reads) < file.stat().st_size / 5


def test_a_bucket_without_its_package_says_what_to_install(monkeypatch) -> None:
    def missing(path: object) -> bool:
        raise ImportError("Please install gcsfs to access Google Storage")

    monkeypatch.setattr(type(epath.Path("gs://bucket/a.jsonl")), "is_dir", missing)
    with pytest.raises(ConfigError, match="gs://bucket/a.jsonl: .*pip install gcsfs"):
        places.find("gs://bucket/a.jsonl")


def test_without_network_a_data_set_of_the_hub_is_a_clear_error() -> None:
    for spec in ("no-such-org/no-such-set", "hf://datasets/zwhe99/DeepMath-103K@main/data/x-*"):
        with pytest.raises(ConfigError, match="the hub gave nothing .*wanted network"):
            places.find(spec)
    with pytest.raises(ConfigError, match="wanted hf://datasets/ORG/NAME"):
        places.find("hf://models/a/b")


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A hub of one data set on this disk: `files` by name; `asked` tells what was fetched."""
    root = tmp_path / "datasets--org--name" / "snapshots" / "1"
    asked: list[Any] = []

    def snapshot_download(
        repo: str, *, repo_type: str, revision: str | None, allow_patterns: Any = None,
        dry_run: bool = False,
    ):  # fmt: skip
        assert repo_type == "dataset"
        listed = [f.relative_to(root).as_posix() for f in sorted(root.rglob("*")) if f.is_file()]
        if dry_run:
            return [type("Info", (), {"filename": name}) for name in listed]
        asked.append((repo, revision, allow_patterns))
        return str(root)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)

    def fill(*files: str) -> list[Any]:
        shutil.rmtree(root, ignore_errors=True)
        for name in files:
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            jsonl(root, {"question": f"{name}?", "answer": "1"}, name=name)
        asked.clear()
        return asked

    return fill


def test_a_known_data_set_gives_its_training_files(hub) -> None:
    asked = hub("polaris-data-53K.jsonl", "README.md", "other.jsonl")
    assert names("POLARIS-Project/Polaris-Dataset-53K") == ["polaris-data-53K.jsonl"]
    assert names("hf://datasets/POLARIS-Project/Polaris-Dataset-53K@v1") == names(
        "POLARIS-Project/Polaris-Dataset-53K"
    )
    assert [revision for _, revision, _ in asked] == [None, "v1", None]


def test_any_other_data_set_gives_its_training_files_or_asks_which(hub) -> None:
    asked = hub("data/train-0.jsonl", "data/train-1.jsonl", "data/test-0.jsonl", "README.md")
    files = places.find("org/name")
    assert [file.name for file in files] == ["train-0.jsonl", "train-1.jsonl"]
    assert places.label(files[0]) == "name"
    hub("only.jsonl", "test.jsonl")
    assert names("org/name") == ["only.jsonl"]
    hub("en/train.jsonl", "cn/train.jsonl")
    with pytest.raises(
        ConfigError, match="which of its files.*cn/train.*hf://datasets/org/name/PA"
    ):
        places.find("org/name")
    assert names("hf://datasets/org/name/en/*") == ["train.jsonl"]
    with pytest.raises(DataError, match="org/name has no file fr/*"):
        places.find("hf://datasets/org/name/fr/*")
    assert asked[-1] == ("org/name", None, ["fr/*"])


def test_without_network_a_data_set_in_the_cache_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    repo = tmp_path / "datasets--POLARIS-Project--Polaris-Dataset-53K"
    (repo / "refs").mkdir(parents=True)
    (repo / "refs" / "main").write_text("abc123")
    (repo / "snapshots" / "abc123").mkdir(parents=True)
    jsonl(repo / "snapshots" / "abc123", made.polaris("1?", "1"), name="polaris-data-53K.jsonl")
    assert [p.question for p in load("POLARIS-Project/Polaris-Dataset-53K")] == ["1?"]


def test_a_data_set_that_is_not_whole_is_noticed(hub, monkeypatch: pytest.MonkeyPatch) -> None:
    hub("polaris-data-53K.jsonl")
    known = {"POLARIS-Project/Polaris-Dataset-53K": places.DataSet("polaris-data-53K.jsonl", 9)}
    monkeypatch.setattr(places, "DATA_SETS", known)
    account = sieve(knobs("POLARIS-Project/Polaris-Dataset-53K"))[1]
    assert any("published with 9" in line for line in account.lines())


def test_a_folder_here_goes_before_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "org" / "name").mkdir(parents=True)
    jsonl(tmp_path / "org" / "name", made.polaris("1?", "1"))
    assert names("org/name") == ["set.jsonl"]
