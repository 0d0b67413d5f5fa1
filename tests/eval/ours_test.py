"""The server that is started for a run folder: a stand-in with its manners."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import httpx2
import pytest

from eval import evaluation, ours
from eval.ours import serving
from seirenes_jax.errors import SeirenesError
from tests.eval.runner import QUICK, command, problems, responses, summary

STAND_IN = """
import sys, threading, time
sys.path.insert(0, {root!r})
from tests.eval.fake_server import Fake
assert sys.argv[1].startswith("--model=") and sys.argv[2] == "--port=0", sys.argv
print("loading", flush=True)
print("a warning", file=sys.stderr, flush=True)
server = Fake()
print(f"serving adder at {{server.url}}", flush=True)
for _ in range(3000):
    print("chatter " * 20)
server.serve_forever()
"""


@pytest.fixture
def stand_in(tmp_path: Path) -> Path:
    path = tmp_path / "serve.py"
    path.write_text(STAND_IN.format(root=str(ours.ROOT)))
    return path


def test_it_is_started_used_and_ended(tmp_path: Path, stand_in: Path) -> None:
    with serving("runs/x", tmp_path / "server.log", serve=stand_in) as (model, url):
        assert model == "adder"
        assert httpx2.get(f"{url}/health", trust_env=False).status_code == 200
    with pytest.raises(httpx2.ConnectError):
        httpx2.get(f"{url}/health", trust_env=False)
    assert "a warning" in (tmp_path / "server.log").read_text()


def test_it_ends_when_the_command_fails(tmp_path: Path, stand_in: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        with serving("x", tmp_path / "server.log", serve=stand_in) as (_, url):
            raise KeyboardInterrupt
    with pytest.raises(httpx2.ConnectError):
        httpx2.get(f"{url}/health", trust_env=False)


def test_its_last_words_are_told(tmp_path: Path) -> None:
    broken = tmp_path / "serve.py"
    broken.write_text("import sys; print('no such model', file=sys.stderr); sys.exit(2)")
    with pytest.raises(SeirenesError, match=r"(?s)exit code 2.*no such model"):
        with serving("x", tmp_path / "server.log", serve=broken):
            pass


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux ends a child with its parent")
def test_it_does_not_outlive_a_killed_command(tmp_path: Path, stand_in: Path) -> None:
    code = (
        "from pathlib import Path\nfrom eval.ours import serving\nimport time\n"
        f"with serving('x', Path({str(tmp_path / 'server.log')!r}), "
        f"serve=Path({str(stand_in)!r})) as (_, url):\n"
        "    print(url, flush=True)\n    time.sleep(60)\n"
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, cwd=ours.ROOT
    )
    assert parent.stdout is not None
    url = parent.stdout.readline().strip()
    assert httpx2.get(f"{url}/health", trust_env=False).status_code == 200
    os.kill(parent.pid, signal.SIGKILL)
    parent.wait()
    parent.stdout.close()
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        try:
            httpx2.get(f"{url}/health", trust_env=False)
        except httpx2.TransportError:
            return
        time.sleep(0.05)
    pytest.fail("the server is still there")


def test_a_folder_of_weights_is_evaluated_with_it(
    tmp_path: Path, stand_in: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from functools import partial

    from eval import run

    monkeypatch.setattr(evaluation, "serving", partial(serving, serve=stand_in))
    weights, out = tmp_path / "weights", tmp_path / "out"
    weights.mkdir()
    argv = (f"--hf={weights}", f"--data={problems(tmp_path, 3)}", f"--out={out}", *QUICK)
    assert command(run, *argv) == 0
    asked = len(responses(out))
    assert command(run, *argv) == 0  # another port, the same evaluation
    assert asked == len(responses(out)) == 3
    assert summary(out)["model"]["name"] == "adder"
    assert summary(out)["server"]["endpoint"] == "launch/serve.py"
