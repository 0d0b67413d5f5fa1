"""What model.path may be: a folder, gs://, a hub id; what is none of them is told at once."""

from pathlib import Path
from typing import Any

import fsspec
import huggingface_hub
import pytest
from etils.epath import backend

from seirenes_jax.errors import ConfigError
from seirenes_jax.hf import hub
from seirenes_jax.text import load_tokenizer
from tests.bucket import bucket


def test_a_folder_that_is_there_is_meant(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "Qwen" / "Qwen3-4B").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert Path(hub.find("Qwen/Qwen3-4B")) == Path("Qwen/Qwen3-4B")
    assert Path(hub.find("~/Qwen")) == tmp_path / "Qwen"
    # No hub id, so nobody asks the hub: what reads it will say that it is not there.
    assert Path(hub.find("/no/such/folder")) == Path("/no/such/folder")


def test_a_hub_id_is_fetched_without_code_and_pickles(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[str, list[str]]] = []

    def fetch(repo: str, *, allow_patterns: list[str]) -> str:
        asked.append((repo, allow_patterns))
        return str(tmp_path)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fetch)
    assert Path(hub.find("Qwen/Qwen3-4B")) == tmp_path
    ((repo, patterns),) = asked
    files = [
        "config.json", "generation_config.json", "model-00001-of-00003.safetensors",
        "model.safetensors.index.json", "tokenizer.json", "tokenizer_config.json", "vocab.json",
        "merges.txt", "chat_template.jinja",
    ]  # fmt: skip
    others = ["pytorch_model.bin", "modeling_qwen.py", "consolidated.safetensors", "model.gguf"]
    kept = huggingface_hub.utils.filter_repo_objects(files + others, allow_patterns=patterns)
    assert repo == "Qwen/Qwen3-4B" and list(kept) == files


def test_without_network_one_message_says_what_to_do() -> None:
    with pytest.raises(ConfigError) as refused:
        hub.find("Qwen/Qwen3-4B")
    said = str(refused.value)
    for words in ("model.path", "no folder 'Qwen/Qwen3-4B' here", "hub id", "Qwen3-4B", "copy"):
        assert words in said
    assert len(said.splitlines()) == 1


def test_a_store_without_its_library_or_rights_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_library(name: str, **_: Any) -> None:
        raise ImportError("Please install gcsfs to access Google Storage")

    def no_rights(name: str, **_: Any) -> None:
        raise PermissionError("403 anonymous caller")

    for broken, words in ((no_library, "pip install gcsfs"), (no_rights, "the store refused")):
        backend.fsspec_backend._get_filesystem.cache_clear()
        monkeypatch.setattr(fsspec, "filesystem", broken)
        with pytest.raises(ConfigError, match=words):
            hub.find("gs://bucket/model")
    backend.fsspec_backend._get_filesystem.cache_clear()


def test_the_tokenizer_of_a_store_is_read_through_a_local_copy(folder: Path) -> None:
    with bucket() as store:
        for file in folder.iterdir():
            store.objects[f"b/m/{file.name}"] = file.read_bytes()
        place = hub.find("gs://b/m")
        with hub.local_copy(place) as here:
            remote = load_tokenizer(here)
            assert not list(here.glob("*.safetensors"))
    local = load_tokenizer(folder)
    messages = (("user", "Tom has 12 apples."),)
    assert not here.exists() and remote.render(messages) == local.render(messages)
    with hub.local_copy(folder) as same:
        assert same == folder


def test_a_tokenizer_can_be_saved_after_its_copy_is_gone(folder: Path, tmp_path: Path) -> None:
    with bucket() as store:
        for file in folder.iterdir():
            store.objects[f"b/m/{file.name}"] = file.read_bytes()
        with hub.local_copy(hub.find("gs://b/m")) as here:
            remote = load_tokenizer(here)
    remote.save(tmp_path / "saved")
    saved = load_tokenizer(tmp_path / "saved")
    assert saved.encode("12 + 5") == remote.encode("12 + 5")
    assert (tmp_path / "saved" / "chat_template.jinja").is_file()
