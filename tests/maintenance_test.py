"""The machine's notice is heard as a signal is; one that stood there before is not."""

import threading
import time
from collections.abc import Iterator
from contextlib import closing
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from seirenes_jax import maintenance
from seirenes_jax.signals import Stop


class Metadata:
    """A metadata server of this machine. `said`: its answers by key; "" = it fails."""

    def __init__(self) -> None:
        self.said = {"maintenance-event": "NONE", "preempted": "FALSE"}
        self.asked: list[str] = []
        told = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                key = self.path.removeprefix("/computeMetadata/v1/instance/")
                assert self.headers["Metadata-Flavor"] == "Google"
                told.asked.append(key)
                answer = told.said[key]
                self.send_response(200 if answer else 503)
                self.end_headers()
                self.wfile.write(answer.encode())

            def log_message(self, *_: object) -> None:
                """Say nothing."""

        self.server = HTTPServer(("127.0.0.1", 0), Handler)
        self.host = f"127.0.0.1:{self.server.server_address[1]}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def rounds(self, n: int) -> None:
        """Wait until all was asked so many times more."""
        wanted = len(self.asked) + n * len(self.said)
        until = time.monotonic() + 60
        while len(self.asked) < wanted:
            assert time.monotonic() < until
            time.sleep(0.01)


@pytest.fixture
def metadata() -> Iterator[Metadata]:
    found = Metadata()
    yield found
    found.server.shutdown()
    found.server.server_close()


@pytest.mark.parametrize(
    ("key", "value"),
    [("maintenance-event", "TERMINATE_ON_HOST_MAINTENANCE"), ("preempted", "TRUE")],
)
def test_a_notice_is_a_stop(metadata: Metadata, key: str, value: str) -> None:
    stop = Stop(600.0)
    with closing(stop), maintenance.heeding(stop, metadata.host, every_s=0.01):
        metadata.rounds(2)
        metadata.said[key] = ""  # it does not answer: nothing is concluded
        metadata.rounds(2)
        assert stop.asked is None
        metadata.said[key] = value
        until = time.monotonic() + 60
        while stop.asked is None and time.monotonic() < until:
            time.sleep(0.01)
    assert stop.asked == f"the machine's notice {key} = {value}"


def test_a_notice_from_before_is_not_heard_again(metadata: Metadata) -> None:
    """The launcher begins the run again at once; it would stop and be begun for ever."""
    metadata.said["maintenance-event"] = "TERMINATE_ON_HOST_MAINTENANCE"
    with closing(Stop(600.0)) as stop, maintenance.heeding(stop, metadata.host, every_s=0.01):
        metadata.rounds(3)
        metadata.said["maintenance-event"] = "NONE"  # the machine was mended under us
        metadata.rounds(3)
        assert stop.asked is None


def test_who_is_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(maintenance.NAMED, raising=False)
    product = tmp_path / "product_name"
    monkeypatch.setattr(maintenance, "PRODUCT", product)
    assert maintenance.server("tpu") == ""  # a TPU that is not in their cloud
    product.write_text("Google Compute Engine\n")
    assert maintenance.server("tpu") == "metadata.google.internal"
    assert maintenance.server("cpu") == maintenance.server("gpu") == ""
    monkeypatch.setenv(maintenance.NAMED, "127.0.0.1:1")
    assert maintenance.server("cpu") == "127.0.0.1:1"
    with closing(Stop(600.0)) as stop, maintenance.heeding(stop, "", every_s=0.01):
        assert stop.asked is None
