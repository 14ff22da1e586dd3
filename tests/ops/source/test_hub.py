from __future__ import annotations

import hashlib
import os
import socket
import subprocess
import sys
from pathlib import Path

import huggingface_hub.constants
import pytest
from tokenizers import Tokenizer

from colbuild.arch.files.vocabulary import read_vocabulary
from colbuild.errors import SourceUnavailableError
from colbuild.fetch.fetching import Fetched, fetch, look, path_here
from colbuild.hashing import scan_tree, tree_digest
from colbuild.progress import Progress, Report, silent
from tests.helpers.steps import run_step
from tests.helpers.tiny import make_tiny_tokenizer
from tests.ops.source.servers import Hub

WEIGHTS = b"safetensors " * 500
FILES = {
    "config.json": b'{"model_type": "llama"}',
    "model.safetensors": WEIGHTS,
    "tokenizer.json": b"{}",
    "merges.txt": b"a b",
    "chat_template.jinja": b"{{ messages }}",
    "README.md": b"# A model",
    "pytorch_model.bin": b"pickle",
    "model.fp16.safetensors": b"a variant",
    "onnx/model.json": b"{}",
    ".gitattributes": b"",
}
WANTED = ["README.md", "chat_template.jinja", "config.json", "merges.txt", "model.safetensors", "tokenizer.json"]
URI = "hf://org/tiny@v1"

ROOT = Path(__file__).parents[3]

pytestmark = pytest.mark.usefixtures("alone", "online")


@pytest.fixture
def online(monkeypatch: pytest.MonkeyPatch) -> None:
    """The client as it is without anybody's settings."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setenv("HF_TOKEN", "hf_nobody")


def get(uri: str, downloads: Path, endpoint: str, monkeypatch: pytest.MonkeyPatch, report: Report = silent) -> Fetched:
    monkeypatch.setenv("HF_ENDPOINT", endpoint)
    return fetch(uri, root=downloads.parent, downloads=downloads, report=report)


def test_a_model_comes_without_pickles_and_variants(downloads: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert look(URI, root=downloads, downloads=downloads) is None
    seen: list[Progress] = []
    hub = Hub("org/tiny", FILES)
    with hub.serve() as endpoint:
        fetched = get(URI, downloads, endpoint, monkeypatch, seen.append)
    assert fetched.path.name == "tiny"
    assert sorted(path.name for path in fetched.path.rglob("*")) == WANTED
    assert (fetched.path / "model.safetensors").read_bytes() == WEIGHTS
    assert fetched.digest == tree_digest(scan_tree(fetched.path)) == look(URI, root=downloads, downloads=downloads)
    total = sum(len(FILES[name]) for name in WANTED)
    assert (seen[0].done, seen[-1].done, seen[-1].total) == (0, total, total)
    # Everything was asked for at the commit that the tag stood for.
    assert all(hub.commit in request for request in hub.requests if "/resolve/" in request)
    assert get(URI, downloads, "http://127.0.0.1:1", monkeypatch) == fetched


@pytest.mark.parametrize("uri", ["hf://org/words@v1", "hf://org/words@v1/tokenizer.json"])
def test_a_familys_tokenizer_comes_from_the_hub(uri: str, downloads: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a repository without weights, or as one file; the step makes the family's of it."""
    source = downloads.parent / "words"
    make_tiny_tokenizer(source)
    hub = Hub("org/words", {path.name: path.read_bytes() for path in source.iterdir()})
    with hub.serve() as endpoint:
        fetched = get(uri, downloads, endpoint, monkeypatch)
    output = downloads.parent / "output"
    output.mkdir()
    rows = read_vocabulary(fetched.path)
    assert rows == read_vocabulary(source)
    run_step("tokenizer", {"model": source, "raw": fetched.path}, {"rows": rows}, output)
    text = "Ada visits Zürich."
    ours, theirs = (Tokenizer.from_file(str(folder / "tokenizer.json")) for folder in (output, source))
    assert ours.encode(text).ids == theirs.encode(text).ids


def test_one_file_is_fetched_alone(downloads: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hub = Hub("org/tiny", {"sub/x.gguf": WEIGHTS, "y.gguf": b"y"})
    with hub.serve() as endpoint:
        fetched = get("hf://org/tiny/sub/x.gguf", downloads, endpoint, monkeypatch)
    assert (fetched.path.name, fetched.digest) == ("x.gguf", hashlib.sha256(WEIGHTS).hexdigest())
    assert not any("y.gguf" in request for request in hub.requests)
    assert sorted(path.name for path in downloads.rglob("*") if path.is_file()) == ["record.json", "x.gguf"]


def test_a_dataset_comes_with_its_tables_and_text(downloads: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = {"README.md": b"", "data/train-0.parquet": b"PAR1", "more/a.txt": b"a", "load.py": b"print()"}
    with Hub("org/words", files, kind="dataset").serve() as endpoint:
        fetched = get("hf://datasets/org/words", downloads, endpoint, monkeypatch)
    found = sorted(path.relative_to(fetched.path).as_posix() for path in fetched.path.rglob("*") if path.is_file())
    assert found == ["data/train-0.parquet", "more/a.txt"]


REPOSITORY = {
    ".gitattributes": b"",
    "README.md": b"",
    "data/train-0.parquet": b"PAR1",
    "data/test-0.parquet": b"PAR1",
    "en/train-0.jsonl": b"{}",
    "en/x.pkl": b"p",
}


@pytest.mark.parametrize(
    ("source", "files", "wanted"),
    [
        ("hf://datasets/org/words", "data/train-*", ["data/train-0.parquet"]),
        ("hf://datasets/org/words/en", "*", ["train-0.jsonl"]),
        ("hf://datasets/org/words", "*.md,en", ["README.md", "en/train-0.jsonl"]),
    ],
)
def test_of_a_repository_only_the_chosen_files_are_downloaded(
    downloads: Path, monkeypatch: pytest.MonkeyPatch, source: str, files: str, wanted: list[str]
) -> None:
    hub = Hub("org/words", REPOSITORY, kind="dataset")
    with hub.serve() as endpoint:
        fetched = get(f"{source}#files={files}", downloads, endpoint, monkeypatch)
        found = sorted(path.relative_to(fetched.path).as_posix() for path in fetched.path.rglob("*") if path.is_file())
        assert found == wanted
        assert not any("test-0" in request or ".pkl" in request for request in hub.requests)
        # Another choice is another content, with a record of its own.
        assert look(source, root=downloads, downloads=downloads) is None
        assert path_here(source, root=downloads, downloads=downloads) is None
    assert path_here(f"{source}#files={files}", root=downloads, downloads=downloads) == fetched.path


def test_a_choice_that_matches_nothing_says_what_the_repository_has(
    downloads: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with (
        Hub("org/words", REPOSITORY, kind="dataset").serve() as endpoint,
        pytest.raises(SourceUnavailableError, match=r"no file matches 'files: valid-\*'") as caught,
    ):
        get("hf://datasets/org/words#files=valid-*", downloads, endpoint, monkeypatch)
    assert "data/test-0.parquet, data/train-0.parquet" in (caught.value.hint or "")
    assert caught.value.key == "files"


def test_a_branch_is_pinned_to_the_commit_of_its_first_use(downloads: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    uri = "hf://org/tiny/config.json"
    with Hub("org/tiny", FILES).serve() as endpoint:
        fetched = get(uri, downloads, endpoint, monkeypatch)
    fetched.path.unlink()
    moved = Hub("org/tiny", FILES, commit="b" * 40, revisions=("main", "a" * 40))
    with moved.serve() as endpoint:
        assert get(uri, downloads, endpoint, monkeypatch).digest == fetched.digest
    assert any("a" * 40 in request for request in moved.requests)
    assert not any("/main" in request for request in moved.requests)


def test_a_private_repository_is_opened_by_the_users_token(downloads: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Hub("org/tiny", FILES, token="hf_secret").serve() as endpoint:
        with pytest.raises(SourceUnavailableError, match="does not exist, or you may not see it") as caught:
            get(URI, downloads, endpoint, monkeypatch)
        assert "HF_TOKEN" in (caught.value.hint or "")
        monkeypatch.setenv("HF_TOKEN", "hf_secret")
        assert get(URI, downloads, endpoint, monkeypatch).path.is_dir()


def test_a_gated_repository_is_told(downloads: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hub = Hub("org/tiny", FILES, token="hf_secret", gated=True)
    with hub.serve() as endpoint, pytest.raises(SourceUnavailableError, match="is gated") as caught:
        get(URI, downloads, endpoint, monkeypatch)
    assert "hf_nobody" not in f"{caught.value} {caught.value.hint}"


@pytest.mark.parametrize(
    ("uri", "files", "says", "hint"),
    [
        ("hf://org/other", FILES, "does not exist", "check its name"),
        ("hf://org/tiny@v2", FILES, "no revision 'v2'", "a branch, a tag"),
        ("hf://org/tiny@v1/x.json", FILES, "no file 'x.json' at revision 'v1'", ""),
        ("hf://org/tiny@v1/model.bin", FILES, "pickled weights only", "safetensors"),
        ("hf://org/tiny", {"config.json": b"{}", "pytorch_model.bin": b"p"}, "pickled weights only", "safetensors"),
        ("hf://org/tiny", {"a.gguf": b"p"}, "GGUF files and no safetensors: name one", "hf://org/tiny@main/a.gguf"),
        ("hf://org/tiny", {"README.md": b""}, "holds no safetensors", ""),
    ],
)
def test_what_the_hub_does_not_have_is_told(
    downloads: Path, monkeypatch: pytest.MonkeyPatch, uri: str, files: dict[str, bytes], says: str, hint: str
) -> None:
    with Hub("org/tiny", files).serve() as endpoint, pytest.raises(SourceUnavailableError) as caught:
        get(uri, downloads, endpoint, monkeypatch)
    assert says in caught.value.message
    assert hint in (caught.value.hint or "")
    assert list(downloads.iterdir()) == []


def test_a_hub_that_names_files_elsewhere_is_not_believed(downloads: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hub = Hub("org/words", {"../../outside.txt": b"x"}, kind="dataset")
    with hub.serve() as endpoint, pytest.raises(SourceUnavailableError, match="outside of its repository"):
        get("hf://datasets/org/words", downloads, endpoint, monkeypatch)


def test_an_unreachable_hub_is_told(downloads: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        with pytest.raises(SourceUnavailableError, match=r"cannot be fetched from the hub at http://127\.0\.0\.1"):
            get(URI, downloads, f"http://127.0.0.1:{taken.getsockname()[1]}", monkeypatch)


def test_the_clients_offline_mode_is_respected(downloads: Path) -> None:
    code = (
        "import sys; from pathlib import Path\n"
        "from colbuild.errors import ColbuildError; from colbuild.fetch.fetching import fetch\n"
        "try: fetch(sys.argv[1], root=Path(sys.argv[2]), downloads=Path(sys.argv[2]))\n"
        "except ColbuildError as error: print(error.exit_code, error.message, error.hint)"
    )
    # The client reads this variable when it is imported, hence a process of its own.
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_ENDPOINT": "http://127.0.0.1:1"}
    command = [sys.executable, "-c", code, URI, str(downloads)]
    ran = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, check=True)
    assert ran.stdout.startswith("5 ") and "offline" in ran.stdout and "HF_HUB_OFFLINE" in ran.stdout
