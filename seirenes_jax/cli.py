"""What every command shares: how flags are read and how a command ends.

Never jax: a mistake is told at once.
"""

import difflib
import errno
import os
import signal
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import fields
from types import FrameType

from seirenes_jax import heap
from seirenes_jax.errors import DONE, FAILED, RESUMABLE, ConfigError, SeirenesError, Stopped
from seirenes_jax.knobs import Settings
from seirenes_jax.voice import one_voice

TRAIN_FLAGS: Mapping[str, str | None] = {
    "config": None, "workdir": None, "cache_dir": None, "fork": None, "coordinator": None,
    "processes": None, "process": None,
}  # fmt: skip
KNOB = "config."  # --config.PATH=VALUE sets a knob
NO_SPACE = (errno.ENOSPC, errno.EDQUOT)
SWITCHED_ON = "yes"
# TPU's library, brought by the tests' requirements or for plans, complains where there are no TPUs
# that it was not told these, and then leaves the work to others. Told, it leaves it quietly.
NO_TPU = {"TPU_ACCELERATOR_TYPE": "v5litepod-4", "TPU_WORKER_HOSTNAMES": "localhost"}


def parse(
    argv: Sequence[str], *, flags: Mapping[str, str | None], switches: Sequence[str] = ()
) -> tuple[dict[str, str | None], list[str]]:
    """Flags by name, with their defaults, and knobs as `path=value`. The last of a kind wins.

    A switch takes no value; it comes back as "yes" or None. Only commands with a flag `config`
    have knobs.

    >>> parse(["--config=a.py", "--config.seed", "1"], flags={"config": None})
    ({'config': 'a.py'}, ['seed=1'])
    """
    found = {**flags, **dict.fromkeys(switches)}
    overrides: list[str] = []
    rest = list(argv)
    while rest:
        word = rest.pop(0)
        if not word.startswith("--"):
            raise ConfigError(f"got {word!r}; wanted --name=value, one of {_known(found)}")
        name, has_value, value = word[2:].partition("=")
        is_knob = name.startswith(KNOB) and "config" in flags
        if not is_knob and name not in found:
            raise ConfigError(f"--{name}: no such flag.{_advice(name, found)}")
        if name in switches:
            if has_value:
                raise ConfigError(f"--{name}: got {value!r}; wanted --{name} alone")
            found[name] = SWITCHED_ON
            continue
        if not has_value:
            if not rest or rest[0].startswith("--"):
                raise ConfigError(f"--{name}: got no value; wanted --{name}=VALUE")
            value = rest.pop(0)
        if is_knob:
            overrides.append(f"{name.removeprefix(KNOB)}={value}")
        elif value == "":  # an unset shell variable, as a rule
            raise ConfigError(f"--{name}: got nothing; wanted --{name}=VALUE")
        else:
            found[name] = value
    return found, overrides


def need(flags: Mapping[str, str | None], name: str) -> str:
    """The value of a flag that has no default."""
    value = flags[name]
    if value is None:
        raise ConfigError(f"--{name}: it is missing; wanted --{name}=VALUE (--help shows examples)")
    return value


def whole_number(flags: Mapping[str, str | None], name: str) -> int | None:
    """The number a flag gives; None where it was not given."""
    value = flags[name]
    if value is not None and not value.isdigit():
        raise ConfigError(f"--{name}: got {value!r}; wanted a whole number")
    return None if value is None else int(value)


def _known(names: Mapping[str, str | None]) -> str:
    return ", ".join(f"--{name}" for name in names) + (
        ", --config.KNOB" if "config" in names else ""
    )


def _advice(name: str, known: Mapping[str, str | None]) -> str:
    if "config" in known and name.split(".")[0] in {f.name for f in fields(Settings)}:
        return f" Knobs are set as --{KNOB}{name}=VALUE."
    near = difflib.get_close_matches(name, [*known, "help"], n=1, cutoff=0.5)
    return (f" Did you mean --{near[0]}?" if near else "") + f" There are {_known(known)}."


def guard(
    main: Callable[[list[str]], int], argv: Sequence[str], *, doc: str = "", programs: bool = False
) -> int:
    """Run a command and give its exit code: a user's mistake is one message, without a traceback.

    `--help` prints `doc` and runs nothing. `programs`: it runs compiled ones, again and again. An
    error of ours keeps its traceback, and Python exits with 1.
    """
    if doc and not {"--help", "-h"}.isdisjoint(argv):
        print(doc.strip())
        return DONE
    # Only its tokenizers are used here; that torch is absent is nothing to be told about.
    os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")
    if programs:
        heap.keep_what_is_freed()
    if not heap.may_have_tpu():
        for name, value in NO_TPU.items():
            os.environ.setdefault(name, value)
    try:
        with _terminable(), one_voice():
            return main(list(argv))
    except SeirenesError as error:
        return _end(str(error), error.exit_code)
    except KeyboardInterrupt:
        return _end("stopped by Ctrl-C; the same command again goes on", RESUMABLE)
    except OSError as error:
        if error.errno not in NO_SPACE:
            raise
        where = f" ({error.filename})" if error.filename else ""
        return _end(
            f"no space left on the device{where}; what was saved before is still there. Free some "
            "space, then run the same command again",
            FAILED,
        )


def _end(message: str, code: int) -> int:
    sys.stdout.flush()
    said = message if code == RESUMABLE else f"error: {message}"
    print(said, file=sys.stderr, flush=True)
    return code


@contextmanager
def _terminable() -> Iterator[None]:
    """SIGTERM ends a command as Ctrl-C does, until the command takes the signal over."""

    def stop(number: int, frame: FrameType | None) -> None:
        raise Stopped("stopped by SIGTERM; the same command again goes on")

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
