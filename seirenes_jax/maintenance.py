"""A cloud machine's own notice that it is about to be taken: a stop like any other signal.

Compute Engine's metadata server says it: `maintenance-event` leaves NONE up to an hour before the
host is taken down (a machine with a TPU cannot be moved while it runs), `preempted` becomes TRUE
when a spot machine is called back. JAX's own notice is the SIGTERM that signals.py already hears.
"""

import os
import threading
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from seirenes_jax.signals import Stop

SERVER = "metadata.google.internal"
NAMED = "GCE_METADATA_HOST"  # how Google's own libraries are led to another server
KEYS = ("maintenance-event", "preempted")
QUIET = ("NONE", "FALSE")
EVERY_S = 5.0
PATIENCE_S = 3.0
PRODUCT = Path("/sys/class/dmi/id/product_name")


def server(platform: str) -> str:
    """The server to ask, where this is a TPU of Google Cloud or one is named; else nothing."""
    if named := os.environ.get(NAMED, ""):
        return named
    on_google = PRODUCT.is_file() and "Google" in PRODUCT.read_text()
    return SERVER if platform == "tpu" and on_google else ""


@contextmanager
def heeding(stop: Stop, host: str, *, every_s: float = EVERY_S) -> Iterator[None]:
    """Ask from time to time while inside; "" = there is nobody to ask."""
    if not host:
        yield
        return
    over = threading.Event()
    thread = threading.Thread(target=_listen, args=(stop, host, every_s, over), daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()


def _listen(stop: Stop, host: str, every_s: float, over: threading.Event) -> None:
    """A notice that stood there at the start has stopped an earlier life already. This one runs on
    until the machine goes: stopping at once would only be begun again, over and over.
    """
    known = dict.fromkeys(KEYS, "")
    while True:
        for key in KEYS:
            said = _ask(host, key)
            if said and known[key] and said not in (known[key], *QUIET) and stop.asked is None:
                stop.hear(f"the machine's notice {key} = {said}")
                return
            known[key] = said or known[key]
        if over.wait(every_s):
            return


def _ask(host: str, key: str) -> str:
    """What the server says; nothing where it does not answer: it is asked again soon."""
    url = f"http://{host}/computeMetadata/v1/instance/{key}"
    request = urllib.request.Request(url, headers={"Metadata-Flavor": "Google"})
    try:
        with urllib.request.urlopen(request, timeout=PATIENCE_S) as answer:
            said: bytes = answer.read(100)
    except OSError:
        return ""
    return said.decode(errors="replace").strip()
