"""The folder of an evaluation: what was asked stands in it, so that nothing is mixed or lost.

`run.json` is what decides the answers and how to grade them; another command that would ask
something else is refused, field by field. One process at a time.
"""

import fcntl
import json
import os
import shlex
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from eval.bank import read_bank, write_bank
from eval.client import Sampling, public_url
from eval.items import Dataset, from_rows, to_rows
from eval.study import Study
from seirenes_jax.analysis import read_object
from seirenes_jax.errors import ConfigError
from seirenes_jax.knobs import Prompts
from seirenes_jax.report import saving, write_json, write_text

DATASET = ("name", "rows", "sha256", "origin", "published", "license", "state")


@dataclass(frozen=True, slots=True)
class About:
    """What is written down besides the study itself."""

    endpoint: str
    model_date: str | None
    tokenizer: str | None
    fallback: bool
    price_in: float
    price_out: float
    command: str


@contextmanager
def held(folder: Path) -> Iterator[None]:
    """One process at a time; the hold dies with its process."""
    with saving(folder):
        folder.mkdir(parents=True, exist_ok=True)
        handle = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise ConfigError(
                f"--out: another process works in {folder}; nothing was touched. Wait for it, stop "
                "it, or use another --out"
            ) from error
        yield
    finally:
        os.close(handle)


def identity(study: Study) -> dict[str, Any]:
    """What may not differ between two commands in one folder."""
    return {
        "model": study.model,
        "sampling": asdict(study.sampling),
        "prompts": {k: v for k, v in asdict(study.prompts).items() if k != "adversary"},
    }


def keep(folder: Path, study: Study, about: About) -> None:
    """Write down what is asked; refuse a folder that holds another evaluation."""
    stored = read_object(folder / "run.json")
    if stored is None and any((folder / "responses").glob("*.jsonl")):
        raise ConfigError(f"--out: {folder} has responses but no run.json; use another --out")
    mine = identity(study)
    if stored is not None:
        _refuse(stored, mine, study.datasets, folder)
    with saving(folder):
        (folder / "problems").mkdir(exist_ok=True)
    for dataset in study.datasets:
        lines = (json.dumps(row, ensure_ascii=True) + "\n" for row in to_rows(dataset))
        write_text(folder / "problems" / f"{dataset.name}.jsonl", "".join(lines))
    if study.bank:
        write_bank(folder / "hints.jsonl", study.bank)
    else:
        (folder / "hints.jsonl").unlink(missing_ok=True)
    write_json(folder / "run.json", {
        "identity": mine, "adversary": study.prompts.adversary, "n": study.n,
        "per_request": study.per_request,
        "datasets": [{name: getattr(one, name) for name in DATASET} for one in study.datasets],
        "about": asdict(about),
    })  # fmt: skip


def _refuse(
    stored: Mapping[str, Any], mine: Mapping[str, Any], datasets: Sequence[Dataset], folder: Path
) -> None:
    was, now = _flat(stored["identity"]), _flat(mine)
    for name in now:
        if was.get(name) != now[name]:
            raise ConfigError(
                f"--out: {folder} holds an evaluation with {name} = {was.get(name)!r}, this one "
                f"has {now[name]!r}; nothing was touched. Use another --out, or the same flags"
            )
    shas = {one["name"]: one["sha256"] for one in stored["datasets"]}
    for dataset in datasets:
        if shas.get(dataset.name, dataset.sha256) != dataset.sha256:
            raise ConfigError(
                f"--out: {folder} was asked another {dataset.name} (sha256 "
                f"{shas[dataset.name][:16]}, now {dataset.sha256[:16]}). Use another --out"
            )


def _flat(value: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, one in value.items():
        found |= _flat(one, f"{prefix}{key}.") if isinstance(one, Mapping) else {prefix + key: one}
    return found


def read(folder: Path) -> tuple[Study, About]:
    """What a folder was asked."""
    stored = read_object(folder / "run.json")
    if stored is None:
        raise ConfigError(f"{folder}: no evaluation there (no run.json)")
    same = stored["identity"]
    datasets = [
        Dataset(items=from_rows(folder / "problems" / f"{one['name']}.jsonl"), **one)
        for one in stored["datasets"]
    ]
    hints = folder / "hints.jsonl"
    study = Study(
        model=same["model"],
        sampling=Sampling(**same["sampling"]),
        prompts=Prompts(adversary=stored["adversary"], **same["prompts"]),
        n=stored["n"],
        per_request=stored["per_request"],
        datasets=tuple(datasets),
        bank=tuple(read_bank(hints)) if hints.is_file() else (),
    )
    return study, About(**stored["about"])


def command_line(module: str, argv: Sequence[str]) -> str:
    """The command as it may be printed: passwords and queries in urls are cut out."""
    return shlex.join(["python", "-m", module, *(_public(word) for word in argv)])


def _public(word: str) -> str:
    name, given, value = word.partition("=")
    url = value if name.startswith("--") and given else word
    parts = urlsplit(url) if "://" in url else None
    if parts is None or not ("@" in parts.netloc or parts.query):
        return word
    return word.replace(url, public_url(url))
