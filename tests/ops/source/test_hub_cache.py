"""Compute nodes without a network: the hub client's own cache, filled elsewhere, is what sources come from."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import huggingface_hub.constants
import pytest
from huggingface_hub import hf_hub_download, snapshot_download

from colbuild.errors import SourceUnavailableError
from colbuild.fetch.fetching import Fetched, Pin, fetch
from tests.ops.source.servers import Hub
from tests.ops.source.test_hub import FILES, ROOT, WANTED, WEIGHTS

pytestmark = pytest.mark.usefixtures("alone")

COMMIT = "a" * 40
NOWHERE = "http://127.0.0.1:1"


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The client's cache, empty."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setenv("HF_TOKEN", "hf_nobody")
    return tmp_path / "cache"


def filled(hub: Hub, *, only: list[str] | None = None, revision: str = "v1") -> None:
    """Fills the cache as the client does."""
    with hub.serve() as endpoint:
        for name in only or hub.files:
            hf_hub_download(hub.repo, name, repo_type=hub.kind, revision=revision, endpoint=endpoint)


def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setenv("HF_ENDPOINT", NOWHERE)


def get(uri: str, downloads: Path, pin: Pin | None = None) -> Fetched:
    return fetch(uri, root=downloads.parent, downloads=downloads, pin=pin)


@pytest.mark.parametrize("revision", ["v1", COMMIT])
def test_a_full_cache_is_as_good_as_the_hub(
    revision: str, cache: Path, downloads: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    uri, hub = f"hf://org/tiny@{revision}", Hub("org/tiny", FILES)
    with hub.serve() as endpoint:
        monkeypatch.setenv("HF_ENDPOINT", endpoint)
        online = get(uri, tmp_path / "other")
    filled(hub)
    offline(monkeypatch)
    found = get(uri, downloads)
    assert sorted(path.name for path in found.path.iterdir()) == WANTED
    assert found.digest == online.digest
    record = json.loads(next(downloads.glob("*/record.json")).read_text())
    assert record["origin"] == {"commit": COMMIT}
    # Copies: cleaning the client's cache takes nothing away.
    shutil.rmtree(cache)
    assert (found.path / "model.safetensors").read_bytes() == WEIGHTS


def test_one_file_and_a_dataset_come_from_the_cache(
    cache: Path, downloads: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    filled(Hub("org/tiny", {"sub/x.gguf": WEIGHTS, "y.gguf": b"y"}))
    filled(Hub("org/words", {"data/train.parquet": b"PAR1", "load.py": b""}, kind="dataset"))
    offline(monkeypatch)
    one = get("hf://org/tiny@v1/sub/x.gguf", downloads)
    assert (one.path.name, one.digest) == ("x.gguf", hashlib.sha256(WEIGHTS).hexdigest())
    many = get("hf://datasets/org/words@v1", downloads)
    assert [path.name for path in many.path.rglob("*") if path.is_file()] == ["train.parquet"]


@pytest.mark.parametrize(("left_out", "enough"), [("*.bin", True), ("tokenizer.json", False)])
def test_a_download_in_part_is_enough_if_what_it_leaves_out_is_not_needed(
    left_out: str, enough: bool, cache: Path, downloads: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As `hf download` makes it, which notes all files of the repository."""
    with Hub("org/tiny", FILES).serve() as endpoint:
        snapshot_download("org/tiny", revision="v1", endpoint=endpoint, ignore_patterns=left_out, max_workers=1)
    offline(monkeypatch)
    if enough:
        assert sorted(path.name for path in get("hf://org/tiny@v1", downloads).path.iterdir()) == WANTED
    else:
        with pytest.raises(SourceUnavailableError, match=r"it lacks tokenizer\.json"):
            get("hf://org/tiny@v1", downloads)


def test_what_a_lock_pins_is_still_compared(cache: Path, downloads: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    filled(Hub("org/tiny", FILES))
    offline(monkeypatch)
    pin = Pin("0" * 64, {"commit": COMMIT}, "family.lock")
    with pytest.raises(SourceUnavailableError, match=r"does not match family\.lock"):
        get("hf://org/tiny@v1", downloads, pin)
    # The commit that the lock names decides, not what a branch stands for in the cache.
    moved = Pin("0" * 64, {"commit": "b" * 40}, "family.lock")
    with pytest.raises(SourceUnavailableError, match="nor in the cache"):
        get("hf://org/tiny@v1", downloads, moved)


def test_a_cache_that_lacks_files_says_which_and_how_to_get_them(
    cache: Path, downloads: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    index = json.dumps({"weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors"}}).encode()
    parts = {"config.json": b"{}", "model.safetensors.index.json": index, "model-1.safetensors": b"1"}
    filled(Hub("org/tiny", {**parts, "model-2.safetensors": b"2"}), only=list(parts))
    filled(Hub("org/bare", FILES), only=["config.json"])
    offline(monkeypatch)
    for uri, says in (
        ("hf://org/tiny@v1", "model-2.safetensors"),
        ("hf://org/tiny@v1/other.gguf", "other.gguf"),
        ("hf://org/bare@v1", "holds no safetensors"),
        ("hf://org/absent@v1", "nor in the cache"),
    ):
        with pytest.raises(SourceUnavailableError, match=says) as caught:
            get(uri, downloads)
        assert f"hf download {uri.removeprefix('hf://').split('@')[0]} --revision v1" in (caught.value.hint or "")


def test_an_unreachable_hub_is_done_without_where_a_commit_is_wanted(
    cache: Path, downloads: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    filled(Hub("org/tiny", FILES))
    monkeypatch.setenv("HF_ENDPOINT", NOWHERE)
    assert get(f"hf://org/tiny@{COMMIT}/config.json", downloads).path.is_file()
    # A tag may have moved since.
    with pytest.raises(SourceUnavailableError, match="cannot be fetched"):
        get("hf://org/tiny@v1/config.json", downloads)


def test_the_variables_of_the_environment_are_enough(cache: Path, tmp_path: Path) -> None:
    """The client reads them when it is imported, hence a process of its own."""
    filled(Hub("org/tiny", FILES))
    code = (
        "import sys; from pathlib import Path; from colbuild.fetch.fetching import fetch\n"
        "print(fetch('hf://org/tiny@v1', root=Path(sys.argv[1]), downloads=Path(sys.argv[1])).path.name)"
    )
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HUB_CACHE": str(cache), "HF_ENDPOINT": NOWHERE}
    ran = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)],
        env=environment,
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert ran.stdout.strip() == "tiny"
