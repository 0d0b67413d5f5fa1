"""Run folders and the cache: where they are, what makes two runs the same, how one is forked."""

import json
import os
import shutil
from pathlib import Path

from ml_collections import ConfigDict

from seirenes_jax.errors import ConfigError
from seirenes_jax.report import write_text
from seirenes_jax.settings import refuse_changes, to_json


def default_workdir(spec: str) -> Path:
    """`configs/tiny.py:short` -> runs/tiny-short: the same command finds its run again."""
    path, _, variant = spec.partition(":")
    return Path("runs") / (Path(path).stem + (f"-{variant}" if variant else ""))


def cache_dir(flag: str) -> Path:
    """--cache_dir, else $SEIRENES_CACHE, else ~/.cache/seirenes_jax."""
    return Path(flag or os.environ.get("SEIRENES_CACHE") or "~/.cache/seirenes_jax").expanduser()


def open_run(config: ConfigDict, *, spec: str, workdir: str, fork: str) -> Path:
    """The folder to run in; a folder that holds another run is refused, knob by knob."""
    folder = Path(workdir) if workdir else default_workdir(spec)
    if fork:
        return fork_run(folder, Path(fork))
    if folder.exists() and not folder.is_dir():
        raise ConfigError(f"--workdir: {folder} is a file; wanted a folder")
    stored = folder / "config.json"
    if stored.is_file():
        refuse_changes(read_config(folder), config)
    elif folder.is_dir() and any(folder.iterdir()):
        raise ConfigError(
            f"--workdir: {folder} holds files but no config.json, so it is no run; nothing was touched. "
            "Use another --workdir"
        )
    return folder


def fork_run(source: Path, target: Path) -> Path:
    """Copy what a run needs to go on, so that other knobs may be tried from there."""
    if not (source / "config.json").is_file():
        raise ConfigError(f"--fork: {source} is no run (no config.json); nothing to fork from")
    if target.exists() and any(target.iterdir()):
        raise ConfigError(f"--fork: {target} is not empty; wanted a new folder")
    target.mkdir(parents=True, exist_ok=True)
    for name in ("metrics.jsonl", "rollouts.jsonl", "events.log"):
        if (source / name).is_file():
            shutil.copy2(source / name, target / name)
    if (source / "checkpoints").is_dir():
        shutil.copytree(source / "checkpoints", target / "checkpoints", dirs_exist_ok=True)
    return target


def write_config(folder: Path, config: ConfigDict) -> None:
    """config.json, as it will be compared on resume."""
    write_text(folder / "config.json", to_json(config))


def read_config(folder: Path) -> dict[str, object]:
    """What a run stored; ConfigError where it is no JSON object."""
    file = folder / "config.json"
    try:
        stored = json.loads(file.read_text())
    except (OSError, ValueError) as error:
        raise ConfigError(f"{file}: no run can be read: {error}") from error
    if not isinstance(stored, dict):
        raise ConfigError(f"{file}: got {type(stored).__name__}; wanted a JSON object")
    return stored
