"""Between the bench and a system's process: JSON lines over pipes of their own.

Not stdin and stdout: libraries print what they like. A process ends when its pipe does.
"""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import meter

HERE = Path(__file__).resolve().parent
# The tests' eight devices, another's threads or a cache of compiled programs would be measured too.
NOT_INHERITED = ("XLA_FLAGS", "JAX_COMPILATION_CACHE_DIR", "PYTHONPATH")
SETTINGS = {
    "JAX_PLATFORMS": "cpu", "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_NO_ADVISORY_WARNINGS": "1", "TOKENIZERS_PARALLELISM": "false",
}  # fmt: skip

Call = Callable[[], dict[str, Any]]  # one pass over the work of a case; what it found
Made = tuple[str, Call]  # how it was set up, in words; and the call


class Lost(Exception):
    """A system's process ended, or never came up."""


def serve(makers: Mapping[str, Callable[[str, Path, str], Made]], packages: list[str]) -> None:
    """The process of one system: make what was ordered, then call it as often as asked.

    `makers` by kind of work: (case, model folder, variant) -> what is called.
    """
    with open(int(sys.argv[1])) as hear, open(int(sys.argv[2]), "w") as say:

        def tell(words: dict[str, Any]) -> None:
            say.write(json.dumps(words) + "\n")
            say.flush()

        order = json.loads(hear.readline())
        make = makers[order["kind"]]
        setup, call = make(order["case"], Path(order["folder"]), order["variant"])
        tell({"setup": setup, "versions": {name: version(name) for name in packages}})
        for line in hear:
            tell(meter.measured(call, memory=json.loads(line)["memory"]))


class Process:
    """A system at work, pinned to one core. Close it."""

    def __init__(self, script: str, order: dict[str, str], *, python: str, core: int, log: Path):
        self.name, self.log = f"{script} {order['variant']}".strip(), log
        theirs, self._say = os.pipe()
        self._hear, back = os.pipe()
        environment = {k: v for k, v in os.environ.items() if k not in NOT_INHERITED} | SETTINGS
        command = [python, str(HERE / script), str(theirs), str(back)]
        with open(log, "w") as out:
            self.process = subprocess.Popen(
                pinned(core) + command, pass_fds=(theirs, back), env=environment, stdout=out,
                stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL,
            )  # fmt: skip
        os.close(theirs)
        os.close(back)
        self._in, self._out = os.fdopen(self._hear), os.fdopen(self._say, "w")
        try:
            self.ready = self._exchange(order)
        except BaseException:
            self.close()
            raise

    def call(self, *, memory: bool = False) -> dict[str, Any]:
        return self._exchange({"memory": memory})

    def _exchange(self, words: Mapping[str, Any]) -> dict[str, Any]:
        try:
            self._out.write(json.dumps(words) + "\n")
            self._out.flush()
            line = self._in.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            code = self.process.wait()
            said = self.log.read_text(errors="replace").strip().splitlines()[-12:]
            raise Lost(f"{self.name} ended with code {code}; it said:\n" + "\n".join(said))
        told: dict[str, Any] = json.loads(line)
        return told

    def close(self) -> None:
        """It may be amid a call, which nobody waits for."""
        self.process.kill()
        self.process.wait()
        self._in.close()
        try:
            self._out.close()
        except BrokenPipeError:
            pass


def pinned(core: int) -> list[str]:
    """What pins a command to a core; nothing where there is no taskset."""
    return ["taskset", "-c", str(core)] if shutil.which("taskset") else []
