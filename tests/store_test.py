"""Folders on this machine and in a bucket answer alike."""

from pathlib import Path

import pytest
from etils import epath

from seirenes_jax.errors import ConfigError, DataError, SaveError
from seirenes_jax.store import at, below, copy, copy_tree, is_remote, reached, reaching
from tests.bucket import bucket


def test_a_place_is_of_this_machine_or_of_a_bucket(tmp_path: Path) -> None:
    assert at(str(tmp_path)) == tmp_path and isinstance(at("runs/a"), Path)
    place = at("gs://bucket/runs/a")
    assert str(place) == "gs://bucket/runs/a" and is_remote(place) and not is_remote(tmp_path)
    assert str(place / "b") == "gs://bucket/runs/a/b"


@pytest.mark.parametrize("source", ["here", "gs://bucket/here"])
@pytest.mark.parametrize("target", ["there", "gs://bucket/there"])
def test_all_of_a_folder_is_copied_from_anywhere_to_anywhere(
    source: str, target: str, tmp_path: Path
) -> None:
    with bucket() as store:
        one, other = (at(x if is_remote(x) else tmp_path / x) for x in (source, target))
        written = {"a": b"1", "b/c": b"2" * 100_000, "b/d/e": b""}
        for name, data in written.items():
            if is_remote(one):
                store.objects[f"bucket/here/{name}"] = data
            else:
                (one / name).parent.mkdir(parents=True, exist_ok=True)
                (one / name).write_bytes(data)
        store.objects["bucket/here-too/x"] = b"another"
        assert [str(file)[len(str(one)) + 1 :] for file in below(one)] == list(written)
        copy_tree(one, other)
        found = {str(file)[len(str(other)) + 1 :]: file.read_bytes() for file in below(other)}
        assert found == written
        assert list(below(other / "nowhere")) == []


def test_a_copy_takes_the_place_of_what_was_there(tmp_path: Path) -> None:
    with bucket() as store:
        store.objects |= {"bucket/a": b"new", "bucket/b": b"old"}
        copy(at("gs://bucket/a"), at("gs://bucket/b"))
        (tmp_path / "c").write_bytes(b"older and longer")
        copy(at("gs://bucket/b"), tmp_path / "c")
        assert store.objects["bucket/b"] == (tmp_path / "c").read_bytes() == b"new"


def test_a_store_that_is_not_there_is_a_mistake_told_with_the_flag(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def no_client(self: object) -> bool:
        raise ImportError("Please install gcsfs")

    def refuses(self: object) -> bool:
        raise RuntimeError("401 who are you?\nmore")

    assert reached("runs/a", "--workdir") == Path("runs/a")
    monkeypatch.setattr(epath.Path("gs://bucket/a").__class__, "exists", no_client)
    with pytest.raises(ConfigError, match="--workdir: gs://bucket/a .* pip install gcsfs"):
        reached("gs://bucket/a", "--workdir")
    monkeypatch.setattr(epath.Path("gs://bucket/a").__class__, "exists", refuses)
    with pytest.raises(ConfigError, match="--fork: gs://bucket/a: the store refused.*401 who"):
        reached("gs://bucket/a", "--fork")


def test_what_a_store_refuses_is_a_failed_save_and_our_own_errors_stay() -> None:
    with pytest.raises(SaveError, match="gs://bucket/a: ZeroDivisionError"):
        with reaching("gs://bucket/a"):
            1 / 0  # noqa: B018
    with pytest.raises(DataError, match="mine"), reaching("gs://bucket/a"):
        raise DataError("mine")
