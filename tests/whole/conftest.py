"""One cache for the session: warm start and compiled programs are made once; one whole run."""

from pathlib import Path

import pytest

from tests.whole import mini


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="session")
def undisturbed(cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of six steps that nothing disturbed. Not to be changed; copy it."""
    run = tmp_path_factory.mktemp("undisturbed") / "run"
    mini.train(run, cache)
    return run
