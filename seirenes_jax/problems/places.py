"""Where problems lie: a file, a folder, a pattern, gs://... or a data set of the hub -> files."""

import fnmatch
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from etils import epath

from seirenes_jax.errors import ConfigError, DataError

SUFFIXES = (".jsonl", ".jsonl.gz", ".json", ".csv", ".parquet")
KINDS = f"{', '.join(SUFFIXES[:-1])} or {SUFFIXES[-1]}"


class DataSet(NamedTuple):
    """What is known of a data set of the hub: its training files and how many rows they hold."""

    files: str
    rows: int | None = None  # as published


DATA_SETS: Mapping[str, DataSet] = {
    "BytedTsinghua-SIA/DAPO-Math-17k": DataSet("*.parquet", 1_791_700),
    "open-r1/DAPO-Math-17k-Processed": DataSet("all/train-*.parquet", 17_398),
    "open-r1/OpenR1-Math-220k": DataSet("data/train-*.parquet", 93_733),
    "zwhe99/DeepMath-103K": DataSet("data/train-*.parquet", 103_110),
    "EleutherAI/hendrycks_math": DataSet("*/train-*.parquet", 7_500),
    "POLARIS-Project/Polaris-Dataset-53K": DataSet("polaris-data-53K.jsonl"),
}

_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+(?:@[\w.-]+)?")
_HUB = re.compile(r"hf://datasets/([\w.-]+/[\w.-]+?)(?:@([\w.-]+))?(?:/(.+))?")
_PART = re.compile(r"(?:^|[/_.-])(?:test|valid|validation|dev|eval)(?:[/_.-]|$)", re.IGNORECASE)


def find(spec: str) -> list[epath.Path]:
    """The files of a place, in the order of their names; never none."""
    if spec.startswith("hf://"):
        return _of_hub(spec)
    try:
        files = _files(spec)
    except ImportError as error:
        raise ConfigError(
            f"{spec}: its storage cannot be reached ({error}); for gs:// pip install gcsfs, or "
            "copy the files to this machine"
        ) from error
    if files:
        return files
    if _HUB_ID.fullmatch(spec) and suffix(spec) is None:
        return _of_hub(f"hf://datasets/{spec}")
    raise DataError(
        f"{spec}: no such file; wanted a {KINDS} file of problems, a folder of them, a pattern "
        "like data/*.parquet, gs://..., or a data set of the hub as ORG/NAME"
    )


def suffix(name: str) -> str | None:
    """Which of the known endings a name has."""
    return next((ending for ending in SUFFIXES if name.lower().endswith(ending)), None)


def known(spec: str) -> DataSet | None:
    """What is known of a place, if it is a whole data set of the hub."""
    name = re.sub(r"^hf://datasets/", "", spec).partition("@")[0]
    return DATA_SETS[name] if name in DATA_SETS else None


def label(file: epath.Path) -> str:
    """What a file is called in an account: its data set on the hub, else its own name."""
    hub = re.search(r"datasets--[^/]+?--([^/]+)/", str(file))
    return hub[1] if hub else file.name.partition(".")[0]


def _files(spec: str) -> list[epath.Path]:
    place = epath.Path(spec).expanduser()
    if any(sign in spec for sign in "*?["):
        parts = place.parts
        first = next(n for n, part in enumerate(parts) if any(sign in part for sign in "*?["))
        found = epath.Path(*parts[:first] or ["."]).glob("/".join(parts[first:]))
        return sorted(file for file in found if suffix(file.name) is not None)
    if place.is_dir():
        files = sorted(file for file in _below(place) if suffix(file.name) is not None)
        if not files:
            raise DataError(f"{spec}: the folder holds no file of problems; wanted {KINDS} in it")
        return files
    if not place.exists():
        return []
    if suffix(place.name) is None:
        raise DataError(f"{spec}: got suffix {place.suffix!r}; wanted a {KINDS} file")
    return [place]


def _below(folder: epath.Path) -> Iterator[epath.Path]:
    for entry in folder.iterdir():
        if entry.is_dir():
            yield from _below(entry)
        else:
            yield entry


def _of_hub(spec: str) -> list[epath.Path]:
    """Files of a data set of the hub, through its cache on this machine."""
    found = _HUB.fullmatch(spec)
    if found is None:
        raise ConfigError(
            f"{spec}: not an address of the hub; wanted hf://datasets/ORG/NAME, with @REVISION "
            "and /PATTERN where needed"
        )
    name, revision, pattern = found.groups()
    wanted = [pattern] if pattern else [DATA_SETS[name].files] if name in DATA_SETS else []
    # Imported here: most runs read a file of this machine.
    from huggingface_hub import snapshot_download

    try:
        if not wanted:
            listed = snapshot_download(name, repo_type="dataset", revision=revision, dry_run=True)
            wanted = _training_part(name, [file.filename for file in listed])
        folder = Path(
            snapshot_download(name, repo_type="dataset", revision=revision, allow_patterns=wanted)
        )
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"{spec}: the hub gave nothing ({_first_line(error)}). There is no such local path "
            "either; wanted network access and an existing data set (for a gated one: hf auth "
            "login), or problems.path of a file that was copied here"
        ) from error
    files = {file.relative_to(folder).as_posix(): file for file in folder.rglob("*")}
    chosen = [
        epath.Path(files[inside]) for inside in sorted(files)
        if files[inside].is_file() and any(fnmatch.fnmatch(inside, one) for one in wanted)
    ]  # fmt: skip
    if not chosen:
        raise DataError(f"{spec}: {name} has no file {wanted[0]}; give another pattern")
    return chosen


def _training_part(name: str, files: list[str]) -> list[str]:
    """The one file, or the one folder of files, that is not test data; else ask which."""
    readable = [file for file in files if suffix(file) is not None]
    train = [file for file in readable if not _PART.search(file)]
    folders = {file.rpartition("/")[0] for file in train}
    if len(folders) == 1 and len({suffix(file) for file in train}) == 1:
        return train
    shown = ", ".join(readable[:6]) or "none that can be read"
    raise ConfigError(
        f"hf://datasets/{name}: which of its files? It has {shown}"
        f"{', ...' if len(readable) > 6 else ''}; give hf://datasets/{name}/PATTERN"
    )


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
