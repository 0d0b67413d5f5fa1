"""Run folders and the cache: where they are, what makes two runs the same, how one is forked."""

import fcntl
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ml_collections import ConfigDict

from seirenes_jax.errors import ConfigError
from seirenes_jax.report import saving, write_text
from seirenes_jax.settings import refuse_changes, to_json
from seirenes_jax.store import Folder, copy, copy_tree, is_remote, reached

LEASE = "lease.json"  # who runs in a folder of a bucket
COPIED = ("metrics.jsonl", "rollouts.jsonl", "alarms.jsonl", "events.log")
# What a run that was killed before it could write its config may leave; of no size, but the last.
FIRST_FILES = (*COPIED, "config.json.tmp", LEASE)


def default_workdir(spec: str) -> Path:
    """`configs/tiny.py:short` -> runs/tiny-short: the same command finds its run again."""
    path, _, variant = spec.partition(":")
    return Path("runs") / (Path(path).stem + (f"-{variant}" if variant else ""))


def cache_dir(flag: str) -> Path:
    """--cache_dir, else $SEIRENES_CACHE, else ~/.cache/seirenes_jax; made if it is not there."""
    folder = Path(flag or os.environ.get("SEIRENES_CACHE") or "~/.cache/seirenes_jax").expanduser()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(
            f"the cache cannot be kept in {folder} ({error.strerror}); give a folder that can be "
            "written: --cache_dir=DIR or $SEIRENES_CACHE"
        ) from error
    return folder.absolute()


def open_run(config: ConfigDict, *, spec: str, workdir: str, fork: str) -> Folder:
    """The folder to run in; a folder that holds another run is refused, knob by knob."""
    folder = reached(workdir, "--workdir") if workdir else default_workdir(spec)
    if folder.exists() and not folder.is_dir():
        raise ConfigError(f"--workdir: {folder} is a file; wanted a folder")
    if fork:
        folder = fork_run(folder, reached(fork, "--fork"), config)
    if (folder / "config.json").is_file():
        stored = read_config(folder)
        if _begun(folder):
            refuse_changes(stored, config)
        return folder
    if folder.is_dir() and (foreign := _foreign(folder)):
        raise ConfigError(
            f"--workdir: {folder} holds files ({foreign}) but no config.json, so it is no run; "
            "nothing was touched. Use another --workdir"
        )
    return folder


def _begun(folder: Folder) -> bool:
    """Something is there to go on from; before that a mistaken knob may simply be corrected."""
    saved = folder / "checkpoints"
    if saved.is_dir() and any(entry.name.isdigit() for entry in saved.iterdir()):
        return True
    if (folder / "summary.json").exists():
        raise ConfigError(
            f"--workdir: {folder} holds a finished run without its checkpoints, so nothing can go "
            "on from it; nothing was touched. Use another --workdir"
        )
    return False


def _foreign(folder: Folder) -> str:
    """The first file that no run left before its first step; empty where there is none."""
    for entry in sorted(folder.iterdir()):
        if entry.name not in FIRST_FILES or entry.name in COPIED and entry.read_bytes():
            return str(entry.name)
    return ""


@contextmanager
def held(folder: Path) -> Iterator[None]:
    """One process at a time runs in a folder. The hold dies with its process."""
    with saving(folder):
        folder.mkdir(parents=True, exist_ok=True)
        handle = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise ConfigError(
                f"--workdir: another process runs in {folder}; nothing was touched. Wait for it, "
                "stop it, or use another --workdir"
            ) from error
        yield
    finally:
        os.close(handle)


def fork_run(source: Folder, target: Folder, config: ConfigDict) -> Folder:
    """Copy what a run needs to go on, so that other knobs may be tried from there.

    The copy appears when it is whole (in a bucket: its config.json comes last); the same command
    again finds it and goes on in it.
    """
    if not (source / "config.json").is_file():
        raise ConfigError(f"--fork: {source} is no run (no config.json); nothing to fork from")
    if str(target) == str(source) or _same_folder(source, target):
        raise ConfigError(f"--fork: got the run's own folder, {target}; wanted a new one")
    if (target / "config.json").is_file():
        return target
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise ConfigError(f"--fork: {target} is not empty; wanted a new folder")
    part = target
    if not is_remote(target):
        part = target.absolute().with_name(f".{target.name}.fork")
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir(parents=True)
    same_start = read_config(source).get("init_from") == config.init_from
    for name in (*COPIED, "init_from.json") if same_start else COPIED:
        if (source / name).is_file():
            copy(source / name, part / name)
    copy_tree(source / "checkpoints", part / "checkpoints")
    if is_remote(target):
        (target / "config.json").write_text(to_json(config))
    else:
        write_config(part, config)
        part.rename(target)
    return target


def _same_folder(one: Folder, other: Folder) -> bool:
    return not is_remote(one) and not is_remote(other) and other.exists() and one.samefile(other)


def write_config(folder: Path, config: ConfigDict) -> None:
    """config.json, as it will be compared on resume."""
    write_text(folder / "config.json", to_json(config))


def read_config(folder: Folder) -> dict[str, object]:
    """What a run stored; ConfigError where it is no JSON object."""
    file = folder / "config.json"
    try:
        stored = json.loads(file.read_text())
    except (OSError, ValueError) as error:
        raise ConfigError(f"{file}: no run can be read: {error}") from error
    if not isinstance(stored, dict):
        raise ConfigError(f"{file}: got {type(stored).__name__}; wanted a JSON object")
    return stored
