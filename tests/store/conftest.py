"""Stores that the tests of remotes send from and fetch into."""

from __future__ import annotations

from pathlib import Path

import pytest

from colbuild.store import Store, open_store


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """A store that does not exist yet."""
    return open_store(tmp_path / "store")


@pytest.fixture
def other(tmp_path: Path) -> Store:
    """Another machine's store, prepared."""
    store = open_store(tmp_path / "other")
    store.prepare()
    return store
