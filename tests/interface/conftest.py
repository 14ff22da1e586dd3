"""Two plain models of one architecture, of different sizes."""

from __future__ import annotations

import pytest

from tests.helpers.tiny import make_tiny_model, make_tiny_tokenizer


@pytest.fixture(scope="session")
def models(tmp_path_factory):
    """A folder with `large` and `small`, and `wide`, which is of another architecture."""
    folder = tmp_path_factory.mktemp("models")
    for name, lengths in {
        "large": {},
        "small": {"layers": 4, "ffn": 128, "seed": 1},
        "tall": {"layers": 7, "ffn": 64},
    }.items():
        make_tiny_model(folder / name, **lengths)
        make_tiny_tokenizer(folder / name)
    (folder / "large/LICENSE").write_text("MIT")
    return folder
