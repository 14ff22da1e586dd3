"""Whatever happens to the files of a store, it is found and healed, and no wrong byte is in `out/` afterwards."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from colbuild.errors import BuildError
from colbuild.run.sharing.verifying import verify_store
from colbuild.store import links, open_store
from colbuild.store.objects import published
from tests.helpers.modes import obey_modes
from tests.store.little import DAMAGES, NEEDS, build, content, damage

ROOT = Path(__file__).parents[2]
FUTURE = 400 * 24 * 3600.0


@pytest.fixture(params=["linked", "copied"])
def way(request, monkeypatch):
    """Whether `out/` shares files with the store, so that damage to one is damage to the other."""
    monkeypatch.setattr(links, "clone", lambda *_: False)
    monkeypatch.setattr(links, "SHARED_BYTES", 1000 if request.param == "linked" else 1 << 20)
    return request.param


def state(folder):
    """Every file with what tells whether it was written."""
    return {path: (path.stat().st_ino, path.stat().st_mtime_ns) for path in folder.rglob("*") if path.is_file()}


def assert_whole(root, out, expected):
    """The outputs are right, everything in the store is, and there is nothing left to do."""
    assert content(out) == expected
    store = open_store(root)
    checked = verify_store(store)
    assert (checked.objects, checked.damaged) == (len(NEEDS), ())
    before = state(root), state(out)
    assert build(open_store(root), out) == []
    assert (state(root), state(out)) == before, "a build with nothing to do writes nothing"


@pytest.mark.parametrize("kind", DAMAGES)
def test_damage_to_any_file_of_a_store_is_healed_by_the_next_build(tmp_path, way, kind):
    names = None
    number = 0
    while names is None or number < len(names):
        root, out = tmp_path / f"store{number}", tmp_path / f"out{number}"
        assert build(open_store(root), out) == list(NEEDS)
        expected = content(out)
        if names is None:
            names = sorted(content(root))
            assert len(names) == 2 + 1 + 3 * (2 + 2 + 1 + 1 + 1 + 1), "all kinds of files are there"
        path = root / sorted(content(root))[number]
        digest = path.relative_to(root).parts[2] if path.relative_to(root).parts[0] == "objects" else None
        damage(path, kind)
        if kind == "silent flip" and digest is not None:
            store = open_store(root)
            found = [tree for tree in published(store.layout) if store.verify(tree) is not None]
            # The noted stamps are no content: damage to them is found and healed by any look.
            assert found == ([] if path.name == "stat.json" else [digest]), path
            assert (open_store(root).check_content(digest) is None) == (path.name == "stat.json")
        build(open_store(root), out)
        assert_whole(root, out, expected)
        if digest is not None and path.name != "stat.json":
            assert len(list((root / "quarantine").iterdir())) == 1, path
        number += 1


def test_silent_damage_never_gets_into_an_output(tmp_path, way):
    root, out = tmp_path / "store", tmp_path / "out"
    build(open_store(root), out)
    expected = content(out)
    for path in sorted(root.glob("objects/*/*/files/*")):
        shutil.rmtree(out)
        damage(path, "silent flip")
        assert len(build(open_store(root), out)) == 1, path
        assert content(out) == expected
    assert_whole(root, out, expected)


def test_silent_damage_never_gets_into_a_step_that_checks_what_it_reads(tmp_path):
    root, out = tmp_path / "store", tmp_path / "out"
    build(open_store(root), out)
    expected = content(out)
    store = open_store(root)
    [source] = (store.last("fam", step).output for step in ("source",))
    damage(store.files(source) / "weights", "silent flip")
    store.layout.action(store.last("fam", "model").key).unlink()
    assert build(open_store(root), out) == ["source", "model"]
    assert_whole(root, out, expected)


def test_damaged_bytes_do_not_stay_beside_an_output(tmp_path, way):
    """What was linked to a damaged file is ours, and lies in quarantine; nothing of it is kept as if it were the user's."""
    root, out = tmp_path / "store", tmp_path / "out"
    build(open_store(root), out)
    expected = content(out)
    for path in sorted(root.glob("objects/*/*/files/weights")):
        damage(path, "flip")
    build(open_store(root), out)
    assert sorted(path.name for path in out.iterdir()) == sorted(NEEDS)
    assert_whole(root, out, expected)


def test_clock_that_was_set_back_changes_nothing(tmp_path, way):
    root, out = tmp_path / "store", tmp_path / "out"
    assert build(open_store(root), out, later=FUTURE) == list(NEEDS)
    expected = content(out)
    assert_whole(root, out, expected)
    path = next(root.glob("objects/*/*/files/weights"))
    damage(path, "flip")
    assert len(build(open_store(root), out)) == 1
    assert_whole(root, out, expected)
    assert build(open_store(root), out, version="2") == list(NEEDS)
    assert content(out) != expected


@pytest.mark.parametrize("kind", DAMAGES)
def test_store_on_another_file_system_is_healed_too(tmp_path, kind):
    shared = Path("/dev/shm")
    if not os.access(shared, os.W_OK) or shared.stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("there is no second file system here")
    with tempfile.TemporaryDirectory(dir=shared) as folder:
        root, out = Path(folder) / "store", tmp_path / "out"
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(links, "SHARED_BYTES", 1000)
            assert build(open_store(root), out) == list(NEEDS)
            expected = content(out)
            assert all(path.stat().st_nlink == 1 for path in out.rglob("weights"))
            for path in sorted(root.glob("objects/*/*/files/*")):
                damage(path, kind)
                if kind == "silent flip":
                    shutil.rmtree(out)
                assert len(build(open_store(root), out)) == 1
            assert_whole(root, out, expected)


# -- a store that may only be read ------------------------------------------------------------------------------------

SCRIPT = """
import sys
from pathlib import Path
from colbuild.errors import BuildError
from colbuild.store import open_store
from tests.store.little import build
store, out, version = open_store(Path(sys.argv[1])), Path(sys.argv[2]), sys.argv[3]
try:
    print("ran", build(store, out, version))
except BuildError as error:
    print(error.message, "|", error.hint)
"""


@pytest.fixture
def reader():
    """A folder with a finished build that may only be read, and a way to build there."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        build(open_store(folder / "store"), folder / "out")
        for path in [folder, *folder.rglob("*")]:
            path.chmod(0o555 if path.is_dir() else 0o444)

        def run(version):
            command = [sys.executable, "-B", "-c", SCRIPT, str(folder / "store"), str(folder / "out"), version]
            done = subprocess.run(
                command, cwd=ROOT, capture_output=True, text=True, check=False, preexec_fn=obey_modes, timeout=60
            )
            assert done.returncode == 0, done.stderr
            return done.stdout.strip()

        try:
            yield folder, run
        finally:
            for path in [folder, *(path for path in folder.rglob("*") if path.is_dir())]:
                path.chmod(0o755)


def test_finished_build_works_on_a_store_that_may_only_be_read(reader):
    assert reader[1]("1") == "ran []"


def test_moved_store_works_where_it_may_only_be_read(reader):
    folder, run = reader
    folder.chmod(0o755)
    shutil.copytree(folder / "store", folder / "copy")
    shutil.rmtree(folder / "store")
    (folder / "copy").rename(folder / "store")
    for path in [folder, *(folder / "store").rglob("*")]:
        path.chmod(0o555 if path.is_dir() else 0o444)
    assert run("1") == "ran []"


def test_build_that_has_to_write_to_a_store_that_may_only_be_read_says_so(reader):
    folder, run = reader
    assert run("2").startswith(f"cannot write {folder / 'store'}")
    assert "use another store with --store or COLBUILD_STORE" in run("2")


def test_damage_in_a_store_that_may_only_be_read_is_told_and_not_used(reader):
    folder, run = reader
    damage(next(folder.glob("store/objects/*/*/files/weights")), "flip")
    assert run("1").startswith(f"cannot write {folder / 'store'}")


# -- the mark ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", DAMAGES)
def test_store_whose_marks_are_both_damaged_is_refused_with_the_way_out(tmp_path, kind):
    root = tmp_path / "store"
    open_store(root).prepare()
    for name in ("format", "format.copy"):
        damage(root / name, kind)
    if kind == "deletion":
        # All that lies there has names that only colbuild gives.
        open_store(root).prepare()
        assert (root / "format").read_text() == "colbuild store 1\n"
        return
    with pytest.raises(BuildError) as caught:
        open_store(root)
    assert "write 'colbuild store 1' into that file" in caught.value.hint


@pytest.mark.parametrize("digit", ["3", "0", "11"])
@pytest.mark.parametrize("name", ["format", "format.copy"])
def test_mark_whose_version_lost_a_bit_is_told_by_its_copy(tmp_path, name, digit):
    root = tmp_path / "store"
    open_store(root).prepare()
    (root / name).write_text(f"colbuild store {digit}\n")
    open_store(root).prepare()
    assert (root / name).read_text() == "colbuild store 1\n"
