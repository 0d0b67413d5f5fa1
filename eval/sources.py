"""Files and hubs -> raw rows: .jsonl, .json, .csv, .parquet, a hub data set, a file on the web.

Knows nothing of benchmarks. Every complaint names the file and the line.
"""

import csv
import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx2

from seirenes_jax.errors import DataError
from seirenes_jax.report import saving

Row = dict[str, Any]
CONVERTED = "refs/convert/parquet"  # the hub keeps every data set here as plain parquet files
FETCH_S = 120.0


def read_rows(path: Path) -> list[Row]:
    """All rows of a file, in its order."""
    if not path.is_file():
        raise DataError(f"{path}: no such file; wanted one of {', '.join(sorted(READERS))}")
    if path.suffix not in READERS:
        raise DataError(
            f"{path}: got suffix {path.suffix!r}; wanted one of {', '.join(sorted(READERS))}"
        )
    rows = READERS[path.suffix](path)
    if not rows:
        raise DataError(f"{path}: holds no rows; wanted at least one problem")
    return rows


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not UTF-8 ({error.reason}); save the file as UTF-8") from error


def _object(value: Any, where: str) -> Row:
    if not isinstance(value, dict):
        raise DataError(f"{where}: got {type(value).__name__}; wanted an object with named columns")
    return value


def _jsonl(path: Path) -> list[Row]:
    rows: list[Row] = []
    for number, line in enumerate(_text(path).split("\n"), 1):
        if line.strip():
            try:
                rows.append(_object(json.loads(line), f"{path}:{number}"))
            except ValueError as error:
                raise DataError(f"{path}:{number}: not a line of JSON ({error})") from error
    return rows


def _json(path: Path) -> list[Row]:
    try:
        value = json.loads(_text(path))
    except ValueError as error:
        raise DataError(f"{path}: not JSON ({error})") from error
    if not isinstance(value, list):
        raise DataError(f"{path}: got {type(value).__name__}; wanted a list of objects")
    return [_object(row, f"{path}, entry {at}") for at, row in enumerate(value, 1)]


def _csv(path: Path) -> list[Row]:
    csv.field_size_limit(1 << 24)
    return list(csv.DictReader(_text(path).splitlines(keepends=True)))


def _parquet(path: Path) -> list[Row]:
    import pyarrow  # half a second; other files need it not
    from pyarrow import parquet

    try:
        rows: list[Row] = parquet.read_table(path).to_pylist()
    except pyarrow.ArrowInvalid as error:
        raise DataError(f"{path}: not a readable .parquet file ({error})") from error
    return rows


READERS: dict[str, Callable[[Path], list[Row]]] = {
    ".jsonl": _jsonl, ".json": _json, ".csv": _csv, ".parquet": _parquet,
}  # fmt: skip


def from_hub(repo: str, config: str, split: str) -> list[Row]:
    """The rows of one split of a hub data set; empty names take the only one there is."""
    from huggingface_hub import HfApi, hf_hub_download  # a second to import; local files need none
    from huggingface_hub.errors import HfHubHTTPError

    try:
        names = HfApi().list_repo_files(repo, repo_type="dataset", revision=CONVERTED)
        chosen = choose(names, config, split, repo)
        paths = [
            hf_hub_download(repo, name, repo_type="dataset", revision=CONVERTED) for name in chosen
        ]
    except (HfHubHTTPError, httpx2.HTTPError, OSError) as error:
        said = (str(error).splitlines() or [type(error).__name__])[0]
        raise DataError(
            f"{repo}: the hub did not give it ({said[:200]}). Without network give a local file: "
            "--data=NAME=FILE"
        ) from error
    return [row for path in paths for row in read_rows(Path(path))]


def choose(names: list[str], config: str, split: str, repo: str) -> list[str]:
    """Of CONFIG/SPLIT/0000.parquet names those of one configuration and one split."""
    parts = sorted(
        (*name.split("/")[:2], name)
        for name in names
        if name.endswith(".parquet") and name.count("/") == 2
    )
    kinds = sorted({(one, two) for one, two, _ in parts})
    fit = [
        kind for kind in kinds if config in ("", kind[0]) and split in ("", kind[1])
    ]
    if len(fit) != 1:
        there = ", ".join(f"{repo}:{one}:{two}" for one, two in kinds) or "nothing"
        raise DataError(f"{repo}: {len(fit)} splits fit; wanted one of {there}")
    return [name for one, two, name in parts if (one, two) == fit[0]]


def from_web(url: str, cache: Path) -> list[Row]:
    """The rows of a public file, fetched once."""
    stem = hashlib.sha256(url.encode()).hexdigest()[:16]
    path = cache / "benchmarks" / (stem + Path(url).suffix)
    if not path.is_file():
        try:
            answer = httpx2.get(url, timeout=FETCH_S, follow_redirects=True).raise_for_status()
        except httpx2.HTTPError as error:
            raise DataError(
                f"{url}: could not be fetched ({error}). Without network give a local file: "
                "--data=NAME=FILE"
            ) from error
        with saving(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            draft = path.with_suffix(".part")
            draft.write_bytes(answer.content)
            draft.replace(path)
    return read_rows(path)
