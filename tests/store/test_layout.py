"""A folder becomes a store only if nothing in it is somebody else's, and a store is read only by who can read it."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest

from colbuild.errors import BuildError
from colbuild.store import layout, open_store
from colbuild.store.layout import Layout, create


def refused(root):
    with pytest.raises(BuildError) as caught:
        open_store(root)
    assert caught.value.hint is None or "--store" in caught.value.hint
    return caught.value.message


def content(root):
    return {path.relative_to(root).as_posix() for path in root.rglob("*")}


def test_opening_writes_nothing(tmp_path):
    store = open_store(tmp_path / "new/store")
    assert store.lookup("k" * 64) is None
    assert store.last("fam", "distill a76") is None
    assert store.remembered("config", "d" * 64) is None
    assert content(tmp_path) == set()


def test_a_copy_that_lacks_empty_folders_is_mended(tmp_path):
    """As `rsync --prune-empty-dirs` makes it: a build with nothing to do puts its packages out under a lock."""
    store = open_store(tmp_path / "store")
    store.prepare()
    (store.root / "locks").rmdir()
    store.mend()
    with store.hold("k" * 64, lambda: None):
        pass


def test_preparing_twice_changes_nothing(tmp_path):
    store = open_store(tmp_path / "store")
    store.prepare()
    before = content(tmp_path)
    assert (store.root / "format").read_text() == "colbuild store 1\n"
    assert (store.root / ".gitignore").read_text() == "*\n"
    assert {"store/objects", "store/actions", "store/tmp", "store/quarantine", "store/downloads"} <= before
    store.prepare()
    assert content(tmp_path) == before
    assert open_store(tmp_path / "store") == store


@pytest.mark.parametrize("names", [[], [".gitignore"], ["lost+found"], ["format-0123456789abcdef"]])
def test_folder_without_anything_of_value_may_become_a_store(tmp_path, names):
    for name in names:
        (tmp_path / name).touch()
    open_store(tmp_path).prepare()
    assert (tmp_path / "format").exists()


def test_folder_with_other_things_is_refused_and_left_alone(tmp_path):
    for name in ("d.txt", "b.txt", "c.txt", "a.txt"):
        (tmp_path / name).write_text("mine")
    assert refused(tmp_path) == f"{tmp_path} cannot be the store: it holds other files (a.txt, b.txt, c.txt)"
    assert content(tmp_path) == {"a.txt", "b.txt", "c.txt", "d.txt"}


OWN = (
    "logs/20260701T120000-000123/distill a76.log",
    "logs/20260701T120000-000123/tensorboard/distill a76/events.1",
    "runs/20260701T120000-000123.jsonl",
    "project.json",
    f"downloads/{'a' * 64}/content/file.gguf",
    f"downloads/hashes/aa/{'a' * 64}.json",
    f"objects/aa/{'a' * 64}/files/model.safetensors",
    f"partial/{'a' * 64}/step-00000001.json",
    f"locks/object-{'a' * 64}.lock",
    f"tmp/{'a' * 32}/files/weights",
    "steps/fam/distill a76.json",
)
"""Files that a build leaves where its store was removed meanwhile."""


@pytest.mark.parametrize("names", [*((name,) for name in OWN), OWN], ids=lambda names: names[0].partition("/")[0])
def test_what_a_build_leaves_of_a_store_that_was_removed_becomes_a_store_again(tmp_path, names):
    for name in names:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("")
    open_store(tmp_path).prepare()
    assert (tmp_path / "format").exists()


@pytest.mark.parametrize(
    "name",
    [
        "logs/today.log",
        "runs/marathon.jsonl",
        f"tmp/{'a' * 31}",
        "tmp/notes/a.txt",
        "objects/aa/model.obj",
        "compiled/kernel.so",
        "pins/map.json",
        "project.yaml",
    ],
)
def test_one_file_of_somebody_else_is_enough_to_refuse(tmp_path, name):
    for path in (*OWN, name):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text("mine")
    assert "it holds other files" in refused(tmp_path)


def test_link_in_what_looks_like_a_store_is_refused(tmp_path):
    (tmp_path / "mine").mkdir()
    store = tmp_path / "store"
    (store / "logs").mkdir(parents=True)
    (store / "logs/20260701T120000-000123").symlink_to(tmp_path / "mine")
    assert "it holds other files" in refused(store)
    (store / "logs/20260701T120000-000123").unlink()
    open_store(store)


@pytest.mark.parametrize("name", ["tmp", "logs", "downloads", "objects"])
def test_folder_that_only_looks_like_a_store_is_refused(tmp_path, name):
    """Preparing a store empties its `tmp`: somebody's own must not be taken for it."""
    (tmp_path / name).mkdir()
    (tmp_path / name / "thesis.txt").write_text("mine")
    assert "it holds other files" in refused(tmp_path)
    assert (tmp_path / name / "thesis.txt").exists()


@pytest.mark.parametrize("moment", range(9))
@pytest.mark.parametrize("empty", [True, False], ids=["an empty folder", "no folder"])
def test_a_store_that_another_process_makes_meanwhile_is_one(tmp_path, monkeypatch, moment, empty):
    """Whichever look at the disk the other process comes before."""
    root, looks = tmp_path / "store", itertools.count()
    if empty:
        root.mkdir()

    def before(holder, name):
        look = getattr(holder, name)

        def looking(path, *arguments, **named):
            if next(looks) == moment:
                create(Layout(root))
            return look(path, *arguments, **named)

        monkeypatch.setattr(holder, name, looking)

    for name in ("exists", "is_dir", "iterdir"):
        before(Path, name)
    before(layout, "read_regular")
    open_store(root).prepare()
    assert next(looks) > moment
    assert (root / "format").read_text() == "colbuild store 1\n"


def test_file_is_refused(tmp_path):
    path = tmp_path / "file"
    path.write_text("mine")
    assert refused(path) == f"{path} cannot be the store: it is a file"


def test_store_of_a_newer_version_is_refused(tmp_path):
    (tmp_path / "format").write_text("colbuild store 2\n")
    assert refused(tmp_path) == (
        f"the store {tmp_path} was written by a newer colbuild (format 2; this one reads up to 1)"
    )


@pytest.mark.parametrize(
    "text", ["", "something else\n", "colbuild store\n", "colbuild store one\n", "colbuild store 1 2\n"]
)
def test_mark_that_is_not_ours_is_refused(tmp_path, text):
    (tmp_path / "format").write_text(text)
    assert (
        refused(tmp_path)
        == f"{tmp_path / 'format'} was not written by colbuild, so {tmp_path} cannot be used as the store"
    )


def test_relative_path_is_made_absolute(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    store = open_store(tmp_path.relative_to(tmp_path) / "store")
    monkeypatch.chdir("/")
    store.prepare()
    assert (tmp_path / "store/format").exists()


@pytest.mark.parametrize("name", ["format", "format.copy"])
@pytest.mark.parametrize("text", [None, "", "colbuild stone 1\n"])
def test_lost_or_damaged_mark_is_made_again_from_the_other(tmp_path, name, text):
    store = open_store(tmp_path / "store")
    store.prepare()
    if text is None:
        (store.root / name).unlink()
    else:
        (store.root / name).write_text(text)
    open_store(store.root).prepare()
    assert (store.root / name).read_text() == "colbuild store 1\n"
