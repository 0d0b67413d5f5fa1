"""Folders on this machine or in a bucket (gs://...), behind one interface.

A bucket has no folders, only names with slashes; an object appears when it is whole, and a rename
is a copy.
"""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from etils import epath

from seirenes_jax.errors import ConfigError, SaveError, SeirenesError

Folder = Any  # pathlib.Path on this machine, epath.Path in a bucket: the same methods


def is_remote(place: object) -> bool:
    """In a bucket?"""
    return "://" in str(place)


def at(place: object) -> Folder:
    """The folder of that name; pathlib would take one slash of gs:// away."""
    return epath.Path(str(place)) if is_remote(place) else Path(str(place))


def reached(place: str, flag: str) -> Folder:
    """The folder of that name, in a store that answers; else ConfigError."""
    folder = at(place)
    if not is_remote(place):
        return folder
    try:
        folder.exists()
    except ImportError as error:
        raise ConfigError(
            f"{flag}: {place} cannot be reached ({error}); for gs:// run pip install gcsfs"
        ) from error
    except Exception as error:  # every store has its own
        raise ConfigError(
            f"{flag}: {place}: the store refused: {first_line(error)}; check the name and who you "
            "are there (for gs://, gcloud auth application-default login)"
        ) from error
    return folder


def below(folder: Folder) -> Iterator[Folder]:
    """Every file of a folder and of those in it, by name; none where there is no folder."""
    if folder.is_dir():
        for entry in sorted(folder.iterdir()):
            if entry.is_dir():
                yield from below(entry)
            else:
                yield entry


def copy(source: Folder, target: Folder) -> None:
    """One file, from anywhere to anywhere."""
    if is_remote(source) and is_remote(target):
        source.copy(target, overwrite=True)  # inside the store
        return
    if not is_remote(target):
        target.parent.mkdir(parents=True, exist_ok=True)
    with source.open("rb") as data, target.open("wb") as out:
        shutil.copyfileobj(data, out, 2**24)


def copy_tree(source: Folder, target: Folder) -> None:
    """A folder with all that is in it."""
    for file in below(source):
        copy(file, target / str(file)[len(str(source)) + 1 :])


@contextmanager
def reaching(place: Folder) -> Iterator[None]:
    """What the store refuses is a SaveError that says what to do."""
    try:
        yield
    except SeirenesError:
        raise
    except Exception as error:  # every store has its own
        raise SaveError(
            f"the store refused: {place}: {first_line(error)}. What was saved before is whole; see "
            "that the bucket can be reached, read and written, then give the same command again."
        ) from error


def first_line(error: BaseException) -> str:
    """An error in one line; of a long one the end is kept, too: there stands the reason."""
    lines = str(error).strip().splitlines()
    if not lines:
        return type(error).__name__
    said = lines[0] if len(lines[0]) <= 300 else f"{lines[0][:150]} ... {lines[0][-150:]}"
    return f"{type(error).__name__}: {said}"
