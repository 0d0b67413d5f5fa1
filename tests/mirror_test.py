"""A run folder in a bucket: what is sent and when, what is fetched, who may run there."""

import json
import os
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from seirenes_jax import mirror as module
from seirenes_jax.errors import ConfigError, SaveError
from seirenes_jax.folder import LEASE, open_run
from seirenes_jax.mirror import Mirror
from seirenes_jax.settings import load
from tests.bucket import Store, bucket

HOME = "gs://bucket/runs/a"
UNDER = "bucket/runs/a/"


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    monkeypatch.setattr(module, "SETTLE_S", 0.0)
    monkeypatch.setattr(module, "SILENT_S", 0.6)
    monkeypatch.setattr(module, "BEAT_S", 0.1)
    with bucket() as made:
        yield made


def test_what_changes_is_sent_and_what_does_not_is_not(store: Store, tmp_path: Path) -> None:
    mirror = Mirror(HOME, tmp_path)
    with mirror.held():
        (mirror.spool / "metrics.jsonl").write_text("1\n")
        (mirror.spool / "tensorboard").mkdir()
        (mirror.spool / "tensorboard" / "events").write_text("x")
        (mirror.spool / "config.json.tmp").write_text("half of it")
        mirror.send()
        assert store.objects[UNDER + "metrics.jsonl"] == b"1\n"
        with (mirror.spool / "metrics.jsonl").open("a") as file:
            file.write("2\n")
        mirror.send()
        mirror.send()
        with (mirror.spool / "metrics.jsonl").open("a") as file:
            file.write("3\n")
    assert store.objects[UNDER + "metrics.jsonl"] == b"1\n2\n3\n"  # the end sends, too
    assert store.written.count(UNDER + "metrics.jsonl") == 3
    assert store.written.count(UNDER + "tensorboard/events") == 1
    assert sorted(store.objects) == [UNDER + "metrics.jsonl", UNDER + "tensorboard/events"]


def test_the_bucket_counts_and_checkpoints_stay_there(store: Store, tmp_path: Path) -> None:
    store.objects |= {
        UNDER + "metrics.jsonl": b"1\n", UNDER + "model/config.json": b"{}",
        UNDER + "checkpoints/1/state/d": b"large", UNDER + "hf/model.safetensors": b"large",
        UNDER[:-1] + "-other/metrics.jsonl": b"no",
    }  # fmt: skip
    mirror = Mirror(HOME, tmp_path)
    mirror.spool.mkdir(parents=True)
    (mirror.spool / "rollouts.jsonl").write_text("of a run that never came so far\n")
    with mirror.held():
        found = {
            str(file.relative_to(mirror.spool)) for file in mirror.spool.rglob("*")
            if file.is_file()
        }  # fmt: skip
        assert found == {"metrics.jsonl", "model/config.json"}
        mirror.send()
    assert [name for name in store.written if LEASE not in name] == []  # nothing was new
    assert mirror.spool.name == "a" and str(mirror.home) == HOME


def test_from_time_to_time_all_is_sent_large_files_less_often(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "SEND_S", 0.05)
    mirror = Mirror(HOME, tmp_path)
    with mirror.held():
        small, large = mirror.spool / "metrics.jsonl", mirror.spool / "rollouts.jsonl"
        small.write_bytes(b"1\n")
        whole = mirror.spool / "rollouts.tmp"  # never sent half written
        whole.write_bytes(b"x" * 100 * 2**20)
        whole.rename(large)
        wait_for(lambda: {UNDER + small.name, UNDER + large.name} <= store.objects.keys())
        with small.open("ab") as one, large.open("ab") as two:
            one.write(b"2\n")
            two.write(b"x")
        wait_for(lambda: store.objects[UNDER + small.name] == b"1\n2\n")
        assert len(store.objects[UNDER + large.name]) == 100 * 2**20
    assert len(store.objects[UNDER + large.name]) == 100 * 2**20 + 1


def test_a_bucket_that_refuses_fails_the_save_and_names_the_file(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mirror = Mirror(HOME, tmp_path)
    with pytest.raises(SaveError, match="metrics.jsonl.*HttpError: 403"), mirror.held():
        (mirror.spool / "metrics.jsonl").write_text("1\n")
        monkeypatch.setattr(module, "copy", refuse)
        mirror.send()
    with pytest.raises(KeyError), mirror.held():  # what ends the run is told, not the bucket
        (mirror.spool / "metrics.jsonl").write_text("1\n")
        raise KeyError


class HttpError(Exception):
    """As a store's client has it: no OSError."""


def refuse(source: Path, target: object) -> None:
    raise HttpError("403")


def test_a_folder_of_this_machine_is_its_own_spool(tmp_path: Path) -> None:
    mirror = Mirror(str(tmp_path / "run"), tmp_path / "cache")
    with mirror.held():
        assert mirror.spool == mirror.home == tmp_path / "run"
        mirror.send()
        with pytest.raises(ConfigError, match="another process runs"), mirror.held():
            pass
    assert not (tmp_path / "cache").exists()


def lease(store: Store, beats: int = 1, host: str = "elsewhere", **more: object) -> None:
    """Another process's sign of life."""
    content = {"host": host, "boot": "b", "pid": 7, "time": "now", "beats": beats, "token": "t"}
    store.objects[UNDER + LEASE] = json.dumps(content | more).encode()


def test_a_lease_that_moves_is_refused_and_left_alone(store: Store, tmp_path: Path) -> None:
    over = threading.Event()

    def live() -> None:
        for beats in range(1_000_000):
            lease(store, beats)
            if over.wait(0.1):
                return

    thread = threading.Thread(target=live)
    lease(store)
    thread.start()
    try:
        with pytest.raises(ConfigError, match="process 7 on elsewhere .* runs in gs://"):
            with Mirror(HOME, tmp_path).held():
                pass
    finally:
        over.set()
        thread.join()
    assert json.loads(store.objects[UNDER + LEASE])["token"] == "t"


def test_a_lease_that_stands_still_is_taken(store: Store, tmp_path: Path) -> None:
    lease(store)
    began = time.monotonic()
    with Mirror(HOME, tmp_path).held():
        assert time.monotonic() - began >= 0.6
        mine = json.loads(store.objects[UNDER + LEASE])
        assert (mine["host"], mine["pid"]) == (socket.gethostname(), os.getpid())
        wait_for(lambda: json.loads(store.objects[UNDER + LEASE])["beats"] > 2)
    assert UNDER + LEASE not in store.objects


def test_a_process_of_this_machine_that_is_gone_is_not_waited_for(
    store: Store, tmp_path: Path
) -> None:
    if not module._boot():
        pytest.skip("this system does not tell its starts apart")
    pid = 2**22 + 1  # beyond any
    lease(store, host=socket.gethostname(), boot=module._boot(), pid=pid)
    began = time.monotonic()
    with Mirror(HOME, tmp_path).held():
        assert time.monotonic() - began < 0.5


def test_a_run_whose_lease_was_taken_stops_saving(store: Store, tmp_path: Path) -> None:
    mirror = Mirror(HOME, tmp_path)
    with pytest.raises(SaveError, match="process 7 on elsewhere .* gave no sign of life"):
        with mirror.held():
            lease(store)
            wait_for(lambda: bool(mirror._lease._lost))
            mirror.send()
    assert json.loads(store.objects[UNDER + LEASE])["token"] == "t"  # the other one's stays


def test_a_bucket_folder_is_opened_refused_and_forked_as_a_local_one(
    store: Store, tmp_path: Path
) -> None:
    config = load("configs/tiny.py", [])[1]
    opened = open_run(config, spec="configs/tiny.py", workdir=HOME, fork="")
    assert str(opened) == HOME
    store.objects[UNDER + "notes.txt"] = b"mine"
    with pytest.raises(ConfigError, match="holds files \\(notes.txt\\) but no config.json"):
        open_run(config, spec="configs/tiny.py", workdir=HOME, fork="")
    del store.objects[UNDER + "notes.txt"]
    store.objects |= {
        UNDER + "config.json": json.dumps(config.to_dict()).encode(),
        UNDER + "checkpoints/3/state/d/x": b"array", UNDER + "metrics.jsonl": b"1\n",
    }  # fmt: skip
    other = load("configs/tiny.py", ["optimizer.lr=0.5"])[1]
    with pytest.raises(ConfigError, match="optimizer.lr"):
        open_run(other, spec="configs/tiny.py", workdir=HOME, fork="")
    fork = "gs://bucket/runs/b"
    assert str(open_run(other, spec="configs/tiny.py", workdir=HOME, fork=fork)) == fork
    assert store.objects["bucket/runs/b/checkpoints/3/state/d/x"] == b"array"
    assert store.written[-1] == "bucket/runs/b/config.json"  # whole with its last object
    with pytest.raises(ConfigError, match="the run's own folder"):
        open_run(other, spec="configs/tiny.py", workdir=HOME, fork=HOME)
    local = tmp_path / "fork"
    assert open_run(other, spec="configs/tiny.py", workdir=HOME, fork=str(local)) == local
    assert (local / "checkpoints/3/state/d/x").read_bytes() == b"array"


def wait_for(what: object) -> None:
    until = time.monotonic() + 60
    assert callable(what)
    while not what():
        assert time.monotonic() < until
        time.sleep(0.02)
