from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from colbuild.errors import SourceUnavailableError
from colbuild.fetch import remembered_digests as remembered
from colbuild.fetch.fetching import fetch, look
from colbuild.hashing import scan_tree, tree_digest


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "project"
    (folder / "model").mkdir(parents=True)
    (folder / "model" / "config.json").write_text("{}")
    (folder / "model" / "weights").write_bytes(b"w" * 100)
    (folder / "text.txt").write_bytes(b"words")
    return folder


@pytest.fixture
def downloads(tmp_path: Path) -> Path:
    folder = tmp_path / "downloads"
    folder.mkdir()
    return folder


def test_a_file_is_known_by_the_sha256_of_its_content(root: Path, downloads: Path) -> None:
    assert look("./text.txt", root=root, downloads=downloads) == sha256(b"words")
    fetched = fetch("./text.txt", root=root, downloads=downloads)
    assert (fetched.path, fetched.digest) == (root / "text.txt", sha256(b"words"))


def test_a_folder_is_known_by_its_tree_and_hidden_files_do_not_count(root: Path, downloads: Path) -> None:
    expected = tree_digest(scan_tree(root / "model"))
    (root / "model" / ".git").mkdir()
    (root / "model" / ".git" / "index").write_text("x")
    assert look("./model/", root=root, downloads=downloads) == expected
    (root / "model" / "weights").write_bytes(b"v" * 100)
    assert look("./model", root=root, downloads=downloads) != expected


def test_absolute_paths_may_lie_anywhere(root: Path, downloads: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside.txt"
    outside.write_bytes(b"out")
    assert look(str(outside), root=root, downloads=downloads) == sha256(b"out")


def test_a_link_out_of_the_project_is_refused(root: Path, downloads: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret").write_text("s")
    (root / "link").symlink_to(outside)
    (root / "model" / "leak").symlink_to(outside / "secret")
    for uri in ("./link", "./link/secret", "./model"):
        with pytest.raises(SourceUnavailableError, match="link out of the project") as caught:
            look(uri, root=root, downloads=downloads)
        assert "absolute path" in (caught.value.hint or "")


def test_links_to_files_are_followed_as_in_a_hubs_cache(root: Path, downloads: Path) -> None:
    (root / "model" / "again").symlink_to("weights")
    plain = root / "plain"
    plain.mkdir()
    for name, source in (("config.json", "config.json"), ("weights", "weights"), ("again", "weights")):
        (plain / name).write_bytes((root / "model" / source).read_bytes())
    assert look("./model", root=root, downloads=downloads) == look("./plain", root=root, downloads=downloads)


def test_links_to_folders_are_refused(root: Path, downloads: Path) -> None:
    (root / "model" / "loop").symlink_to(".")
    with pytest.raises(SourceUnavailableError, match="a link to a folder"):
        look("./model", root=root, downloads=downloads)


def test_a_missing_file_is_told_with_its_near_names(root: Path, downloads: Path) -> None:
    with pytest.raises(SourceUnavailableError, match="does not exist") as caught:
        look("./text.tx", root=root, downloads=downloads)
    assert "text.txt" in (caught.value.hint or "")
    with pytest.raises(SourceUnavailableError, match="does not exist"):
        fetch("./no/where", root=root, downloads=downloads)


def test_broken_links_and_empty_folders_are_told(root: Path, downloads: Path) -> None:
    (root / "broken").symlink_to("nowhere")
    with pytest.raises(SourceUnavailableError, match="link to nowhere"):
        look("./broken", root=root, downloads=downloads)
    (root / "empty").mkdir()
    with pytest.raises(SourceUnavailableError, match="without any files"):
        look("./empty", root=root, downloads=downloads)


def test_special_files_are_never_opened(root: Path, downloads: Path, tmp_path: Path) -> None:
    os.mkfifo(root / "pipe")
    (root / "piped").mkdir()
    os.mkfifo(root / "piped" / "config.json")
    (tmp_path / "linked").mkdir()
    (tmp_path / "linked" / "model.safetensors").symlink_to("/dev/zero")
    for uri, says in (
        ("./pipe", "neither a file nor a folder"),
        ("/dev/zero", "neither a file nor a folder"),
        ("./piped", "no regular file"),
        ("./piped#files=*.json", "no regular file"),
        (str(tmp_path / "linked"), "no regular file"),
    ):
        with pytest.raises(SourceUnavailableError, match=says):
            look(uri, root=root, downloads=downloads)
        with pytest.raises(SourceUnavailableError, match=says):
            fetch(uri, root=root, downloads=downloads)


@pytest.mark.parametrize("uri", ["./" + "x" * 300, "/" + "x/" * 3000 + "y", "pkg://json/" + "x" * 5000, "./loop/x"])
def test_a_path_that_no_file_can_have_is_told(uri: str, root: Path, downloads: Path) -> None:
    (root / "loop").symlink_to("loop")
    with pytest.raises(SourceUnavailableError, match=r"cannot be read|does not exist"):
        look(uri, root=root, downloads=downloads)


def test_another_digest_than_the_pinned_one_is_refused(root: Path, downloads: Path) -> None:
    fetch("./text.txt", root=root, downloads=downloads, sha256=sha256(b"words"))
    with pytest.raises(SourceUnavailableError) as caught:
        fetch("./text.txt", root=root, downloads=downloads, sha256="0" * 64)
    assert sha256(b"words") in caught.value.message and "0" * 64 in caught.value.message


def age(path: Path) -> None:
    """Makes a file look as if it had been left alone for a minute: its change time cannot be set, so the clock is not used."""
    os.utime(path, ns=(time.time_ns() - 60_000_000_000,) * 2)


def test_a_file_is_hashed_once_until_it_changes(root: Path, downloads: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = root / "text.txt"
    age(path)
    monkeypatch.setattr(remembered, "_SETTLED_NS", 0)
    hashed: list[Path] = []

    def counted(file: Path) -> str:
        hashed.append(file)
        return sha256(file.read_bytes())

    monkeypatch.setattr(remembered, "hash_file", counted)
    for _ in range(3):
        assert look("./text.txt", root=root, downloads=downloads) == sha256(b"words")
    assert len(hashed) == 1
    status = path.stat()
    path.write_bytes(b"WORDS")
    # Same size, and the old modification time put back: only the change time tells.
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert look("./text.txt", root=root, downloads=downloads) == sha256(b"WORDS")


def test_a_file_changed_just_now_is_not_remembered(root: Path, downloads: Path) -> None:
    (root / "text.txt").write_bytes(b"fresh")
    look("./text.txt", root=root, downloads=downloads)
    assert not list(downloads.rglob("*.json"))


def test_looking_leaves_no_trace_where_nothing_was_built(root: Path, tmp_path: Path) -> None:
    look("./model", root=root, downloads=tmp_path / "absent")
    assert not (tmp_path / "absent").exists()


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "site" / "some_models"
    (folder / "inner").mkdir(parents=True)
    for init in (folder / "__init__.py", folder / "inner" / "__init__.py"):
        init.write_text("raise RuntimeError('a package must not be run to read a file of it')")
    (folder / "x.gguf").write_bytes(b"outer")
    (folder / "inner" / "y.gguf").write_bytes(b"inner")
    (tmp_path / "site" / "single.py").write_text("")
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    return folder


def test_a_packages_file_is_found_without_running_the_package(package: Path, root: Path, downloads: Path) -> None:
    assert look("pkg://some_models/x.gguf", root=root, downloads=downloads) == sha256(b"outer")
    fetched = fetch("pkg://some_models.inner/y.gguf", root=root, downloads=downloads)
    assert (fetched.path, fetched.digest) == (package / "inner" / "y.gguf", sha256(b"inner"))
    assert "some_models" not in sys.modules


@pytest.mark.parametrize(
    ("uri", "says"),
    [
        ("pkg://no_such_package_here/x", "no package 'no_such_package_here' is installed"),
        ("pkg://some_models.absent/x", "no package 'some_models.absent' is installed"),
        ("pkg://some_models/z.gguf", "does not exist"),
        ("pkg://single/x", "a single module"),
    ],
)
def test_what_no_package_has_is_told(package: Path, root: Path, downloads: Path, uri: str, says: str) -> None:
    with pytest.raises(SourceUnavailableError, match=says):
        look(uri, root=root, downloads=downloads)


def test_looking_imports_nothing_heavy(root: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from colbuild.fetch.fetching import look, read_config\n"
        "look('./text.txt', root=Path(sys.argv[1]), downloads=Path(sys.argv[1]) / 'absent')\n"
        "print([name for name in ('torch', 'transformers', 'huggingface_hub', 'pypi_simple', 'requests', 'gguf', 'numpy')"
        " if name in sys.modules])"
    )
    command = [sys.executable, "-c", code, str(root)]
    ran = subprocess.run(command, cwd=Path(__file__).parents[3], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "[]"


def test_of_a_folder_only_the_chosen_files_count(root: Path, downloads: Path) -> None:
    chosen = "./model#files=*.json"
    before = look(chosen, root=root, downloads=downloads)
    (root / "model" / "weights").write_bytes(b"other")
    assert look(chosen, root=root, downloads=downloads) == before != look("./model", root=root, downloads=downloads)
    (root / "model" / "config.json").write_text("{ }")
    assert look(chosen, root=root, downloads=downloads) != before
    assert fetch(chosen, root=root, downloads=downloads).path == root / "model"


@pytest.mark.parametrize(
    ("uri", "says", "hint"),
    [
        ("./model#files=train-*", "./model: no file matches 'files: train-*'", "available files: config.json, weights"),
        ("./text.txt#files=*", "./text.txt is a file, and 'files: *' chooses files of a folder", "remove 'files'"),
    ],
)
def test_a_choice_that_cannot_be_is_told(root: Path, downloads: Path, uri: str, says: str, hint: str) -> None:
    with pytest.raises(SourceUnavailableError) as caught:
        look(uri, root=root, downloads=downloads)
    assert says in caught.value.message
    assert hint in (caught.value.hint or "")
    assert caught.value.key == "files"
