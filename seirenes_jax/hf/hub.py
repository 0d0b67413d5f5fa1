"""Where a folder of weights is: on this machine, in an object store, or on the hub."""

import json
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from os import PathLike
from pathlib import Path
from typing import Any

from etils import epath

from seirenes_jax.errors import ConfigError

Folder = Any  # epath.Path: the interface of pathlib.Path, over local paths and gs:// alike

# What is read beside the weights; none of it is large.
SMALL_FILES = (
    "config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json",
    "vocab.json", "merges.txt", "added_tokens.json", "special_tokens_map.json",
    "chat_template.jinja", "chat_template.json",
)  # fmt: skip
# Of a hub repository only this is fetched: no code, no pickles, no second copy of the weights.
FETCHED = (*SMALL_FILES, "model*.safetensors", "model.safetensors.index.json")
_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")


def as_folder(path: str | PathLike[str]) -> Folder:
    """gs:// must come as text: pathlib.Path would take one of its slashes away."""
    return epath.Path(path)


def is_remote(folder: Folder) -> bool:
    """In an object store, where a rename is a copy and no folder appears at once."""
    return "://" in str(folder)


def find(path: str) -> Folder:
    """What `model.path` means: a folder, or a hub id, which is fetched into the hub's own cache."""
    if "://" in path:
        return _in_store(path)
    folder = as_folder(path).expanduser()
    if folder.is_dir() or not _HUB_ID.fullmatch(path):
        return folder
    # Imported here: it takes seconds, and a local folder does without.
    from huggingface_hub import snapshot_download

    try:
        return as_folder(snapshot_download(path, allow_patterns=list(FETCHED)))
    except Exception as error:  # the hub, its transports and the network each have their own
        lines = str(error).strip().splitlines()
        raise ConfigError(
            f"model.path: no folder {path!r} here, and as a hub id it could not be fetched "
            f"({type(error).__name__}: {lines[0] if lines else 'no reason given'}). Without "
            "network, download it elsewhere, copy its folder here (config.json, *.safetensors, "
            f"tokenizer files) and give that: --config.model.path=/where/it/is/{Path(path).name}"
        ) from error


def _in_store(path: str) -> Folder:
    folder = as_folder(path)
    try:
        folder.exists()
    except ImportError as error:
        raise ConfigError(
            f"{path}: this environment cannot read that store ({error}); for gs:// run "
            "pip install gcsfs"
        ) from error
    except Exception as error:  # every store has its own
        raise ConfigError(
            f"{path}: the store refused: {type(error).__name__}: {error}; check the name and who "
            "you are there (for gs://, gcloud auth application-default login)"
        ) from error
    return folder


@contextmanager
def local_copy(folder: Folder) -> Iterator[Path]:
    """The small files of a folder on this machine, for libraries that read no store."""
    if not is_remote(folder):
        yield Path(folder)
        return
    with tempfile.TemporaryDirectory() as here:
        for name in SMALL_FILES:
            if (folder / name).exists():
                (Path(here) / name).write_bytes((folder / name).read_bytes())
        yield Path(here)


def put_small(source: Path, folder: Folder) -> None:
    """Copy a flat local folder of small files into another, anywhere."""
    for file in sorted(source.iterdir()):
        (folder / file.name).write_bytes(file.read_bytes())


def read_json(file: Folder) -> dict[str, Any]:
    try:
        raw = json.loads(file.read_bytes())
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{file}: wanted a JSON object; {error}") from error
    if not isinstance(raw, dict):
        raise ConfigError(f"{file}: got {type(raw).__name__}; wanted a JSON object")
    return raw
