"""Where a folder of weights is: on this machine, in an object store, or on the hub."""

import json
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from seirenes_jax.errors import ConfigError
from seirenes_jax.store import Folder, copy, first_line, is_remote, reached

# What is read beside the weights; none of it is large.
SMALL_FILES = (
    "config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json",
    "vocab.json", "merges.txt", "added_tokens.json", "special_tokens_map.json",
    "chat_template.jinja", "chat_template.json",
)  # fmt: skip
# Of a hub repository only this is fetched: no code, no pickles, no second copy of the weights.
FETCHED = (*SMALL_FILES, "model*.safetensors", "model.safetensors.index.json")
_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")


def find(path: str) -> Folder:
    """What `model.path` means: a folder, or a hub id, which is fetched into the hub's own cache."""
    if is_remote(path):
        return reached(path, "model.path")
    folder = Path(path).expanduser()
    if folder.is_dir() or not _HUB_ID.fullmatch(path):
        return folder
    # Imported here: it takes seconds, and a local folder does without.
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(path, allow_patterns=list(FETCHED)))
    except Exception as error:  # the hub, its transports and the network each have their own
        raise ConfigError(
            f"model.path: no folder {path!r} here, and as a hub id it could not be fetched "
            f"({first_line(error)}). Without network, download it elsewhere, copy its folder here "
            "(config.json, *.safetensors, tokenizer files) and give that: "
            f"--config.model.path=/where/it/is/{Path(path).name}"
        ) from error


@contextmanager
def local_copy(folder: Folder) -> Iterator[Path]:
    """The small files of a folder on this machine, for libraries that read no store."""
    if not is_remote(folder):
        yield Path(folder)
        return
    with tempfile.TemporaryDirectory() as here:
        for name in SMALL_FILES:
            if (folder / name).exists():
                copy(folder / name, Path(here) / name)
        yield Path(here)


def read_json(file: Folder) -> dict[str, Any]:
    try:
        raw = json.loads(file.read_bytes())
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{file}: wanted a JSON object; {error}") from error
    if not isinstance(raw, dict):
        raise ConfigError(f"{file}: got {type(raw).__name__}; wanted a JSON object")
    return raw
