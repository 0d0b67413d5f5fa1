"""A stand-in for gs://: a flat store of whole objects behind the same file interface.

There are no folders, only names with slashes; an object appears when its writer closes it; what is
read is counted. `epath` reaches the real store through the same fsspec classes.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import fsspec
import pytest
from etils.epath import backend
from fsspec.spec import AbstractBufferedFile, AbstractFileSystem


class Store:
    """What the bucket holds, and what was asked of it."""

    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}
        self.written: list[str] = []  # names, in the order in which they appeared
        self.reads: list[tuple[str, int]] = []  # name and bytes of every request


class Handle(AbstractBufferedFile):  # type: ignore[misc]
    def _fetch_range(self, start: int, end: int) -> bytes:
        data = self.fs.store.objects[self.path][start:end]
        self.fs.store.reads.append((self.path, len(data)))
        return data

    def _initiate_upload(self) -> None:
        self.parts: list[bytes] = []

    def _upload_chunk(self, final: bool = False) -> bool:
        self.parts.append(self.buffer.getvalue())
        if final:
            self.fs.store.objects[self.path] = b"".join(self.parts)
            self.fs.store.written.append(self.path)
        return True


class Bucket(AbstractFileSystem):  # type: ignore[misc]
    protocol = ("gcs", "gs")
    cachable = False
    store: Store

    def ls(self, path: str, detail: bool = True, **_: Any) -> list[Any]:
        path = self._strip_protocol(path).rstrip("/")
        if path in self.store.objects:
            found = {path: self._entry(path)}
        else:
            found = {}
            for name in self.store.objects:
                if name.startswith(path + "/"):
                    child = path + "/" + name[len(path) + 1 :].split("/")[0]
                    found[child] = self._entry(child)
            if not found:
                raise FileNotFoundError(path)
        return list(found.values()) if detail else sorted(found)

    def _entry(self, name: str) -> dict[str, Any]:
        if name in self.store.objects:
            return {"name": name, "size": len(self.store.objects[name]), "type": "file"}
        return {"name": name, "size": 0, "type": "directory"}

    def _open(self, path: str, mode: str = "rb", **options: Any) -> Handle:
        if mode == "rb" and path not in self.store.objects:
            raise FileNotFoundError(path)
        return Handle(self, path, mode, block_size=2**16)

    def _rm(self, path: str) -> None:
        if path not in self.store.objects:
            raise FileNotFoundError(path)
        del self.store.objects[path]

    def mkdir(self, path: str, create_parents: bool = True, **_: Any) -> None:
        """There are no folders to make."""

    def makedirs(self, path: str, exist_ok: bool = False) -> None:
        """There are no folders to make."""

    def rename(self, *_: Any, **__: Any) -> None:
        raise AssertionError("a rename of a folder copies every byte of it; nothing should ask")


@contextmanager
def bucket() -> Iterator[Store]:
    """gs:// is this store while the context lasts."""
    store = Store()
    backend.fsspec_backend._get_filesystem.cache_clear()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fsspec, "filesystem", lambda name, **_: _filled(name, store))
        yield store
    backend.fsspec_backend._get_filesystem.cache_clear()


def _filled(name: str, store: Store) -> Bucket:
    assert name == "gcs", f"the tests have no {name}://"
    made = Bucket()
    made.store = store
    return made
