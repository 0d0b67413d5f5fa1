"""What every test runs under: 8 fake CPU devices, strict dtypes and ranks, no network."""

import os
import socket
import threading
from collections.abc import Iterator
from typing import Any

# Before anything imports jax. Child processes inherit it: a test that starts a run of one device
# takes XLA_FLAGS out of the child's environment.
os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["XLA_FLAGS"] = (
    os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=8"
).strip()
os.environ["HF_HUB_OFFLINE"] = "1"

import hypothesis  # noqa: E402
import jax  # noqa: E402
import pytest  # noqa: E402

jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_numpy_dtype_promotion", "strict")
# Same examples in every run; no clock, no files.
hypothesis.settings.register_profile(
    "same", derandomize=True, deadline=None, database=None, max_examples=40
)
hypothesis.settings.load_profile("same")


class NetworkBlocked(RuntimeError):
    """A test reached for the network. Not an OSError: no retry or fallback may swallow it."""


def _is_local(address: Any) -> bool:
    if not isinstance(address, tuple):
        return True  # a unix socket's path
    host = address[0].decode() if isinstance(address[0], bytes) else str(address[0])
    return host in ("", "localhost", "::1", "0.0.0.0") or host.startswith("127.")


@pytest.fixture(autouse=True, scope="session")
def no_network() -> Iterator[None]:
    """Only loopback may be connected to or looked up."""
    blocked = pytest.MonkeyPatch()
    look_up = socket.getaddrinfo

    def guarded(name: str) -> Any:
        original = getattr(socket.socket, name)

        def call(self: socket.socket, *args: Any) -> Any:
            if not _is_local(args[-1]):  # the address comes last, in sendto too
                raise NetworkBlocked(f"{name} {args[-1]}: tests may only talk to 127.0.0.1")
            return original(self, *args)

        return call

    def guarded_look_up(host: Any, *args: Any, **kwargs: Any) -> Any:
        if host is not None and not _is_local((host,)):
            raise NetworkBlocked(f"look-up of {host}: tests may only talk to 127.0.0.1")
        return look_up(host, *args, **kwargs)

    for name in ("connect", "connect_ex", "sendto"):
        blocked.setattr(socket.socket, name, guarded(name))
    blocked.setattr(socket, "getaddrinfo", guarded_look_up)
    yield
    blocked.undo()


@pytest.fixture(autouse=True)
def no_timer_left() -> Iterator[None]:
    """A timer that outlives its test fires in the middle of another: one ends the process."""
    yield
    left = [thread for thread in threading.enumerate() if isinstance(thread, threading.Timer)]
    for timer in left:
        timer.cancel()
    assert not left, left
