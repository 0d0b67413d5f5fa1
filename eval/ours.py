"""Our own server as a child process: `--checkpoint=RUN` and `--hf=DIR` need no server to be up.

It prints one line `serving MODEL at http://HOST:PORT`; /health says when it is ready. What it says
goes to files: nobody has to read them for it to go on. It ends with this process, however this
process ends.
"""

import re
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx2

from seirenes_jax.errors import SeirenesError
from seirenes_jax.report import saving

ROOT = Path(__file__).resolve().parent.parent
SERVE = ROOT / "launch" / "serve.py"
SAID = re.compile(r"^serving (?P<model>.+) at (?P<url>http://\S+)$")
READY_S = 600.0  # a large model is read and compiled
END_S = 20.0
# What the child does before it becomes the server: on Linux it asks to end with its parent
# (prctl's PR_SET_PDEATHSIG). Not a preexec_fn: that would fork a process full of threads.
TIED = """
import ctypes, os, sys
if sys.platform == "linux":
    ctypes.CDLL(None).prctl(1, 15)
os.execv(sys.executable, [sys.executable, *sys.argv[1:]])
"""


@contextmanager
def serving(
    model: str, log: Path, *, name: str | None = None, max_context: int | None = None,
    serve: Path = SERVE,
) -> Iterator[tuple[str, str]]:  # fmt: skip
    """Start `launch/serve.py`; gives (model name, url) once it is ready."""
    command = [sys.executable, "-c", TIED, str(serve), f"--model={model}", "--port=0"]
    command += [] if name is None else [f"--name={name}"]
    command += [] if max_context is None else [f"--max_context={max_context}"]
    spoken = log.with_suffix(".out")
    with saving(log), spoken.open("wb") as out, log.open("ab") as err:
        child = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=out, stderr=err, cwd=ROOT
        )
    try:
        deadline = time.monotonic() + READY_S
        name, url = _announced(child, spoken, log, deadline)
        _wait_healthy(child, url, log, deadline)
        yield name, url
    finally:
        _end(child)


def _announced(
    child: "subprocess.Popen[bytes]", spoken: Path, log: Path, deadline: float
) -> tuple[str, str]:
    """Its line on stdout. Whatever else it prints is passed over."""
    while time.monotonic() < deadline:
        ended = child.poll() is not None
        for line in spoken.read_text("utf-8", "replace").split("\n")[:-1]:
            found = SAID.match(line.strip())
            if found:
                return found["model"], found["url"]
        if ended:
            break
        time.sleep(0.1)
    raise _broken("did not come up", child, log)


def _wait_healthy(
    child: "subprocess.Popen[bytes]", url: str, log: Path, deadline: float
) -> None:
    while time.monotonic() < deadline and child.poll() is None:
        try:
            if httpx2.get(f"{url}/health", timeout=5.0, trust_env=False).status_code == 200:
                return
        except httpx2.RequestError:
            pass  # not listening yet
        time.sleep(0.2)
    raise _broken("never said that it is ready", child, log)


def _broken(what: str, child: "subprocess.Popen[bytes]", log: Path) -> SeirenesError:
    code = child.poll()
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - 1500))
        last = file.read().decode("utf-8", "replace").strip()
    ended = "" if code is None else f" (it ended with exit code {code})"
    return SeirenesError(f"the server {what}{ended}. Its last words, all of them in {log}:\n{last}")


def _end(child: "subprocess.Popen[bytes]") -> None:
    child.terminate()
    try:
        child.wait(END_S)
    except subprocess.TimeoutExpired:
        child.kill()
        child.wait()
