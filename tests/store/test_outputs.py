"""What is put outside the store is exactly the tree, and nobody's files are lost for it."""

from __future__ import annotations

import errno
import json
import os
import shutil

import pytest

from colbuild.errors import BuildError
from colbuild.store import DamagedTreeError, links, locks, open_store, outputs
from colbuild.store.locks import remove
from tests.store.processes import fill, other

OLD = {"model.safetensors": b"old weights", "config.json": b"{1}", "sub/a": b"a"}
NEW = {"model.safetensors": b"new weights", "config.json": b"{2}", "sub/b": b"b"}


@pytest.fixture
def store(tmp_path):
    return open_store(tmp_path / "store")


@pytest.fixture
def target(tmp_path):
    return tmp_path / "out/fam/phone/checkpoint"


@pytest.fixture(params=["linked", "copied"])
def way(request, monkeypatch):
    """Both ways to put a large file in place: a hard link, and a copy where the file system has none."""
    monkeypatch.setattr(links, "SHARED_BYTES", len(OLD["model.safetensors"]))
    if request.param == "copied":

        def refuse(source, _):
            raise OSError(errno.EXDEV, "another device", source)

        monkeypatch.setattr(os, "link", refuse)
    return request.param


def content(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def beside(target):
    """What lies beside a target, hidden or not."""
    return sorted(path.name for path in target.parent.iterdir() if path != target)


def test_tree_is_placed_as_it_is(store, target, way):
    digest = fill(store, OLD)
    placement = store.place(digest, target)
    assert (placement.changed, placement.kept) == (True, None)
    assert content(target) == OLD
    assert beside(target) == []
    linked = (target / "model.safetensors").samefile(store.files(digest) / "model.safetensors")
    assert linked == (way == "linked")


def test_what_people_edit_is_a_copy_that_they_may_write(store, target):
    digest = fill(store, OLD)
    store.place(digest, target)
    (target / "config.json").write_bytes(b"{mine}")
    assert (store.files(digest) / "config.json").read_bytes() == OLD["config.json"]


def test_placing_again_changes_nothing(store, target, way):
    digest = fill(store, OLD)
    store.place(digest, target)
    before = {path: path.stat().st_ino for path in target.rglob("*")}
    placement = store.place(digest, target)
    assert (placement.changed, placement.kept) == (False, None)
    assert {path: path.stat().st_ino for path in target.rglob("*")} == before


def test_placing_what_is_there_writes_nothing(store, target, monkeypatch):
    digest = fill(store, OLD)
    store.place(digest, target)
    monkeypatch.setattr(locks, "_lock", lambda *_: 1 / 0)
    assert not store.place(digest, target).changed


def test_older_output_of_ours_is_replaced_without_a_trace(store, target, way):
    old = fill(store, OLD)
    store.place(old, target)
    placement = store.place(fill(store, NEW), target)
    assert (placement.changed, placement.kept) == (True, None)
    assert content(target) == NEW
    assert beside(target) == []
    assert content(store.files(old)) == OLD, "the store's own files stay"


def test_older_output_is_known_even_if_its_tree_has_left_the_store(store, target, way):
    old = fill(store, OLD)
    store.place(old, target)
    remove(store.layout.object(old))
    placement = store.place(fill(store, NEW), target)
    assert (content(target), placement.kept) == (NEW, None)


def test_missing_and_incomplete_outputs_are_made_whole(store, target, way):
    digest = fill(store, OLD)
    store.place(digest, target)
    remove(target)
    assert store.place(digest, target).changed
    assert content(target) == OLD


@pytest.mark.parametrize("foreign", ["folder", "file", "link", "dangling link"])
def test_what_is_somebody_elses_is_kept_beside(tmp_path, store, target, foreign):
    target.parent.mkdir(parents=True)
    if foreign == "folder":
        target.mkdir()
        (target / "thesis.txt").write_text("mine")
    elif foreign == "file":
        target.write_text("mine")
    else:
        target.symlink_to(tmp_path if foreign == "link" else "nowhere")
    placement = store.place(fill(store, NEW), target)
    assert placement.changed
    assert content(target) == NEW
    assert placement.kept is not None
    assert placement.kept.name.startswith("checkpoint.kept-")
    assert beside(target) == [placement.kept.name]
    if foreign == "folder":
        assert (placement.kept / "thesis.txt").read_text() == "mine"
    elif foreign == "file":
        assert placement.kept.read_text() == "mine"
    else:
        assert placement.kept.is_symlink()


@pytest.mark.parametrize("change", ["added", "removed", "edited", "edited to the same size"])
def test_output_that_somebody_changed_is_kept_beside(store, target, change):
    store.place(fill(store, OLD), target)
    if change == "added":
        (target / "notes.txt").write_text("mine")
    elif change == "removed":
        (target / "config.json").unlink()
    else:
        # As an editor or `save_pretrained` does: a new file under the old name.
        mine = b"my tuning!!" if "same size" in change else b"mine"
        (target / "model.safetensors").unlink()
        (target / "model.safetensors").write_bytes(mine)
    changed = content(target)
    placement = store.place(fill(store, NEW), target)
    assert content(target) == NEW
    assert content(placement.kept) == changed


def test_output_that_is_there_already_is_adopted_when_the_store_is_new(tmp_path, target, way):
    first, second = open_store(tmp_path / "first"), open_store(tmp_path / "second")
    first.place(fill(first, OLD), target)
    remove(first.root)
    digest = fill(second, OLD)
    placement = second.place(digest, target)
    assert (placement.changed, placement.kept) == (False, None)
    assert second.place(fill(second, NEW), target).kept is None, "from then on it is known as ours"


def test_build_that_dies_before_it_notes_an_output_does_not_take_it_for_foreign(store, target, monkeypatch):
    store.place(fill(store, OLD), target)
    digest = fill(store, NEW)
    with monkeypatch.context() as patch:
        patch.setattr(outputs, "write_json", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            store.place(digest, target)
    assert content(target) == NEW
    assert store.place(digest, target).kept is None
    assert beside(target) == []


def test_failing_copy_leaves_the_older_output(store, target, monkeypatch):
    store.place(fill(store, OLD), target)

    def full(source, *_):
        raise OSError(errno.ENOSPC, "No space left on device", str(source))

    monkeypatch.setattr(os, "link", full)
    monkeypatch.setattr(shutil, "copyfile", full)
    with pytest.raises(BuildError, match="the disk is full"):
        store.place(fill(store, NEW), target)
    assert content(target) == OLD
    assert beside(target) == []


def test_one_tree_may_lie_at_several_places(store, tmp_path):
    digest = fill(store, OLD)
    for name in ("a", "b"):
        store.place(digest, tmp_path / name)
    store.place(fill(store, NEW), tmp_path / "a")
    assert content(tmp_path / "b") == OLD
    assert not store.place(digest, tmp_path / "b").changed


def test_target_is_known_by_its_absolute_path(store, tmp_path, monkeypatch):
    digest = fill(store, OLD)
    monkeypatch.chdir(tmp_path)
    assert store.place(digest, (tmp_path / "a").relative_to(tmp_path)).changed
    assert not store.place(digest, tmp_path / "a").changed
    assert len(list((store.root / "outputs").iterdir())) == 1


def test_what_is_not_in_the_store_cannot_be_placed(store, target):
    store.prepare()
    with pytest.raises(BuildError, match="is not in the store") as caught:
        store.place("0" * 64, target)
    assert caught.value.hint == "build again"
    assert not target.parent.exists()


def test_what_a_killed_build_left_beside_is_cleared_by_the_next_even_if_all_is_in_place(store, target):
    old, new = fill(store, OLD), fill(store, NEW)
    store.place(old, target)
    with other("place", str(store.root), new, str(target)) as process:
        process.kill()
        process.wait(timeout=10)
    assert len(beside(target)) == 1, "the killed process left its draft"
    assert content(target) == OLD
    assert not store.place(old, target).changed
    assert beside(target) == []


def test_build_that_dies_while_it_removes_the_older_output_leaves_nothing_of_it(store, target, monkeypatch):
    store.place(fill(store, OLD), target)
    digest = fill(store, NEW)
    with monkeypatch.context() as patch:
        patch.setattr(outputs, "remove", lambda path: 1 / 0 if path.exists() else None)
        with pytest.raises(ZeroDivisionError):
            store.place(digest, target)
    assert content(target) == NEW
    assert len(beside(target)) == 1
    assert store.place(digest, target).kept is None
    assert beside(target) == []


def test_draft_of_another_store_is_left_alone(store, target):
    target.parent.mkdir(parents=True)
    (target.parent / ".checkpoint.0123abcd-0").mkdir()
    (target.parent / ".checkpoint-mine").mkdir()
    store.place(fill(store, OLD), target)
    assert beside(target) == [".checkpoint-mine", ".checkpoint.0123abcd-0"]


def test_note_of_an_older_version_still_tells_ours_from_theirs(store, target, way):
    store.place(fill(store, OLD), target)
    [note] = (store.root / "outputs").iterdir()
    rows = [{name: row[name] for name in ("path", "size", "sha256")} for row in json.loads(note.read_text())["files"]]
    note.write_text(json.dumps(rows))
    assert not store.place(fill(store, OLD), target).changed
    note.write_text(json.dumps(rows))
    assert store.place(fill(store, NEW), target).kept is None


def test_file_of_ours_that_was_only_touched_stays(store, target, way):
    digest = fill(store, OLD)
    store.place(digest, target)
    for path in target.rglob("*"):
        os.utime(path)
    before = {path: path.stat().st_ino for path in target.rglob("*")}
    assert not store.place(digest, target).changed
    assert {path: path.stat().st_ino for path in target.rglob("*")} == before


def test_edit_that_keeps_the_size_is_found_when_placing_the_same_again(store, target):
    digest = fill(store, OLD)
    store.place(digest, target)
    (target / "config.json").write_bytes(b"{9}")
    placement = store.place(digest, target)
    assert content(target) == OLD
    assert (placement.kept / "config.json").read_bytes() == b"{9}"


# -- a folder of several trees ----------------------------------------------------------------------------------------


def only(*names):
    """Chooses some of a tree's files."""
    return lambda entries: [entry for entry in entries if entry.path in names]


def assembled(store, weights, texts):
    """A model's own files, and those that it has from elsewhere."""
    return {weights: only("model.safetensors"), texts: only("config.json", "sub/b")}


def test_a_folder_is_put_together_from_files_of_several_trees(store, target, way):
    weights, texts = fill(store, OLD), fill(store, NEW)
    assert store.assemble(assembled(store, weights, texts), target).changed
    assert content(target) == {"model.safetensors": b"old weights", "config.json": b"{2}", "sub/b": b"b"}
    linked = (target / "model.safetensors").samefile(store.files(weights) / "model.safetensors")
    assert linked == (way == "linked")
    assert not store.assemble(assembled(store, weights, texts), target).changed


def test_another_tree_of_several_replaces_its_files_and_keeps_nothing_of_the_old(store, target, way):
    weights, texts = fill(store, OLD), fill(store, NEW)
    store.assemble(assembled(store, weights, texts), target)
    newer = fill(store, {**NEW, "config.json": b"{3}"})
    placement = store.assemble(assembled(store, weights, newer), target)
    assert (placement.changed, placement.kept) == (True, None)
    assert content(target)["config.json"] == b"{3}"
    assert beside(target) == []


def test_damage_in_any_of_several_trees_is_found_and_named_before_anything_is_replaced(store, target):
    weights, texts = fill(store, OLD), fill(store, NEW)
    store.assemble(assembled(store, weights, texts), target)
    newer = fill(store, {**NEW, "config.json": b"{3}"})
    damaged = store.files(newer) / "config.json"
    damaged.chmod(0o644)
    damaged.write_bytes(b"{4}")
    with pytest.raises(DamagedTreeError) as raised:
        open_store(store.root).assemble(assembled(store, weights, newer), target)
    assert raised.value.digest == newer
    assert content(target)["config.json"] == b"{2}"


def test_a_note_of_an_older_version_is_of_one_tree(store, target, way):
    digest = fill(store, OLD)
    store.place(digest, target)
    note = store.layout.output(target)
    rows = [
        {key: value for key, value in row.items() if key != "tree"} for row in json.loads(note.read_text())["files"]
    ]
    note.write_text(json.dumps(rows))
    assert not store.place(digest, target).changed
    placement = store.place(fill(store, NEW), target)
    assert (placement.changed, placement.kept) == (True, None)
