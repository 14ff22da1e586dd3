"""`colbuild cache`: what a person is told of the store, and what is done to it."""

from __future__ import annotations

import json
import os
import shutil
import time
from dataclasses import replace

import pytest

from colbuild.errors import EXIT_FAILED
from colbuild.hashing import hash_file
from colbuild.store import open_store
from colbuild.store.collecting.roots import note_root, read_roots
from colbuild.store.layout import download_name
from tests.helpers.project import command
from tests.store.processes import RECORD, fill

SPEC = "specs/tiny.yaml"


@pytest.fixture
def empty(tmp_path, monkeypatch, capsys):
    """A folder without a store, and colbuild in it."""
    folder = tmp_path / "empty"
    folder.mkdir()
    return folder, command(folder, monkeypatch, capsys)


@pytest.fixture
def little(empty):
    """A store with one result that a lock needs and an old one that nothing needs, and colbuild beside it."""
    folder, colbuild = empty
    store = open_store(folder / ".colbuild")
    lock = folder / "family.lock"
    lock.write_text("{}")
    records = {}
    for step, content in (("distill a76", b"kept"), ("distill old", b"garbage " * 200)):
        made = replace(
            RECORD, key=content.hex()[:8] * 8, step=step, output=fill(store, {"weights": content}), built_at=time.time()
        )
        store.record("smol", made)
        records[step] = made
    kept = {"distill a76": records["distill a76"]}
    note_root(store, lock=lock, spec=lock, family="smol", records=kept, sources=["pypi://a"], steps=list(kept))
    os.utime(store.layout.object(records["distill old"].output), (0, 0))
    return store, colbuild, {step: record.output for step, record in records.items()}


@pytest.fixture
def built(finished_project, tmp_path, monkeypatch, capsys):
    """A copy of the tiny family, built."""
    folder = tmp_path / "copy"
    shutil.copytree(finished_project[0], folder)
    return folder, command(folder, monkeypatch, capsys)


def fetched(store, uri):
    """What fetching a source of five bytes leaves; returns its folder."""
    place = store.downloads / download_name(uri)
    (place / "content").mkdir(parents=True)
    (place / "content" / "file").write_bytes(b"12345")
    sha256 = hash_file(place / "content" / "file")
    files = [{"path": "file", "size": 5, "sha256": sha256}]
    value = {"uri": uri, "digest": sha256, "is_folder": False, "files": files, "origin": {}}
    (place / "record.json").write_text(json.dumps(value))
    return place


def flip(path):
    path.chmod(0o644)
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


# -- ls ---------------------------------------------------------------------------------------------------------------


def test_ls_says_how_large_results_are_and_what_made_and_keeps_them(little):
    store, colbuild, digests = little
    out = colbuild("cache", "ls").out
    [kept] = [line for line in out.splitlines() if line.startswith(digests["distill a76"][:12])]
    assert kept.split("  ")[1:] and "distill a76" in kept and "smol" in kept and "4 B" in kept
    assert "family.lock" in kept
    [other] = [line for line in out.splitlines() if line.startswith(digests["distill old"][:12])]
    assert other.rstrip().endswith("–")
    assert f"{store.root}: 2 results, 1.6 kB; 0 sources, 0 B." in out
    assert "1.6 kB of results are unused" in out


def test_ls_for_machines_says_all_of_it(little):
    store, colbuild, digests = little
    listing = json.loads(colbuild("cache", "ls", "--json").out)
    assert (listing["format"], listing["store"], listing["exists"]) == (
        "colbuild.cache-ls.v1",
        str(store.root),
        True,
    )
    stored = {item["digest"]: item for item in listing["objects"]}
    kept, old = stored[digests["distill a76"]], stored[digests["distill old"]]
    assert (kept["steps"], kept["families"], kept["size"], kept["stays"]) == (["distill a76"], ["smol"], 4, True)
    assert [path.rsplit("/", 1)[1] for path in kept["locks"]] == ["family.lock"]
    assert (old["locks"], old["pin"], old["leased"], old["stays"]) == ([], None, False, False)


def test_ls_names_pins_whose_result_is_gone_and_locks_that_are(little):
    store, colbuild, digests = little
    colbuild("cache", "pin", digests["distill old"][:8])
    shutil.rmtree(store.layout.object(digests["distill old"]))
    (store.root.parent / "family.lock").unlink()
    out = colbuild("cache", "ls").out
    assert f"not in the store: {digests['distill old'][:12]} (distill old)" in out
    assert "family.lock is gone: it no longer keeps results." in out


def test_ls_lists_sources_and_what_needs_them(little):
    store, colbuild, _ = little
    for uri in ("pypi://a", "pypi://b"):
        fetched(store, uri)
    lines = colbuild("cache", "ls").out.splitlines()
    assert [line.split() for line in lines if line.startswith("pypi://")] == [
        ["pypi://a", "5", "B", "family.lock"],
        ["pypi://b", "5", "B", "lease"],
    ]


@pytest.mark.parametrize("arguments", [("ls",), ("gc",), ("gc", "--delete"), ("verify",)], ids=" ".join)
def test_store_that_does_not_exist_is_said_kindly_and_not_made(empty, arguments):
    folder, colbuild = empty
    ran = colbuild("cache", *arguments)
    assert ran.code == 0
    assert f"There is no store at {folder / '.colbuild'} yet" in ran.out
    assert list(folder.iterdir()) == []


def test_store_is_found_from_a_folder_below(little, monkeypatch, capsys):
    store, _, _ = little
    below = store.root.parent / "specs" / "more"
    below.mkdir(parents=True)
    assert f"{store.root}: 2 results" in command(below, monkeypatch, capsys)("cache", "ls").out


def test_store_can_be_named(little, monkeypatch, capsys):
    store, _, _ = little
    elsewhere = store.root.parent / "elsewhere"
    elsewhere.mkdir()
    assert "2 results" in command(elsewhere, monkeypatch, capsys)("cache", "ls", "--store", str(store.root)).out


# -- gc ---------------------------------------------------------------------------------------------------------------


def test_gc_only_shows_what_would_go_and_how_much_that_is(little):
    store, colbuild, digests = little
    out = colbuild("cache", "gc").out
    assert digests["distill old"][:12] in out
    assert "distill old" in out
    assert "would go; 1 result" in out
    assert "This was a dry run: 'colbuild cache gc --delete' removes it." in out
    assert store.verify(digests["distill old"]) is None


def test_gc_removes_what_it_showed_when_asked_to(little):
    store, colbuild, digests = little
    dry = json.loads(colbuild("cache", "gc", "--json").out)
    ran = colbuild("cache", "gc", "--delete", "--json")
    done = json.loads(ran.out)
    assert (dry["removed"], done["removed"]) == (False, True)
    assert done["garbage"] == dry["garbage"]
    assert [item["name"] for item in done["garbage"]] == [digests["distill old"]]
    assert not store.layout.object(digests["distill old"]).exists()
    assert store.verify(digests["distill a76"]) is None
    assert "Nothing to remove: 1 result" in colbuild("cache", "gc").out


def test_gc_without_a_lease_removes_fresh_results_too(little):
    store, colbuild, _ = little
    fresh = fill(store, {"weights": b"fresh"})
    assert fresh not in colbuild("cache", "gc", "--json").out
    assert fresh in colbuild("cache", "gc", "--lease", "0s", "--json").out


def test_gc_in_a_renamed_project_removes_nothing_that_it_needs(little, tmp_path, monkeypatch, capsys):
    store, _, digests = little
    store.root.parent.rename(tmp_path / "renamed")
    colbuild = command(tmp_path / "renamed", monkeypatch, capsys)
    removed = colbuild("cache", "gc", "--lease", "0s", "--delete").out
    assert "is gone" not in removed
    [stored] = json.loads(colbuild("cache", "ls", "--json").out)["objects"]
    assert (stored["digest"], stored["locks"]) == (digests["distill a76"], [str(tmp_path / "renamed/family.lock")])


def test_gc_asks_for_projects_that_cannot_be_found_unless_they_may_be_forgotten(little, tmp_path, monkeypatch, capsys):
    store, _, digests = little
    folder = store.root.parent
    store.root.rename(tmp_path / "shared")
    folder.rename(tmp_path / "renamed")
    monkeypatch.chdir(tmp_path)
    colbuild = command(tmp_path, monkeypatch, capsys)
    options = ("--store", "shared", "--lease", "0s")
    assert f"{folder}/family.lock cannot be found" in colbuild("cache", "ls", "--store", "shared").out
    dry = colbuild("cache", "gc", *options)
    assert f"{folder}/family.lock of smol cannot be found, last seen just now: its results are kept." in dry.out
    refused = colbuild("cache", "gc", *options, "--delete")
    assert refused.code == EXIT_FAILED
    assert f"smol: {folder}/family.lock, last seen" in refused.err
    assert "'colbuild build' in a project" in refused.err
    assert "--forget" in refused.err
    store = open_store(tmp_path / "shared")
    assert all(store.verify(digest) is None for digest in digests.values())
    assert colbuild("cache", "gc", *options, "--delete", "--forget").code == 0
    assert json.loads(colbuild("cache", "ls", "--store", "shared", "--json").out)["objects"] == []


@pytest.mark.parametrize("option", ["--lease", "--history"])
def test_time_that_is_none_is_refused(little, option):
    ran = little[1]("cache", "gc", option, "soon")
    assert ran.code == EXIT_FAILED
    assert "'soon' is not a duration" in ran.err


# -- verify -----------------------------------------------------------------------------------------------------------


def test_verify_of_a_sound_store_says_so(little):
    ran = little[1]("cache", "verify")
    assert ran.code == 0
    assert "Read 2 results and 0 sources, 1.6 kB: none is damaged." in ran.out


def test_verify_finds_a_flipped_bit_names_the_step_and_sets_the_result_aside(little):
    store, colbuild, digests = little
    digest = digests["distill a76"]
    flip(store.files(digest) / "weights")
    ran = colbuild("cache", "verify")
    assert ran.code == EXIT_FAILED
    assert f"damaged: {digest} (smol: distill a76)" in ran.out
    assert "the content of weights has changed; quarantined as" in ran.out
    assert "'colbuild build' makes or fetches" in ran.out
    assert not store.layout.object(digest).exists()
    assert len(list(store.layout.folder("quarantine").iterdir())) == 1
    assert colbuild("cache", "verify").code == 0


def test_verify_finds_a_damaged_source(little):
    store, colbuild, _ = little
    place = fetched(store, "pypi://a")
    assert colbuild("cache", "verify").code == 0
    (place / "content" / "file").write_bytes(b"12346")
    ran = colbuild("cache", "verify")
    assert ran.code == EXIT_FAILED
    assert "damaged: pypi://a" in ran.out
    assert not (place / "content").exists()
    assert (place / "record.json").exists()


def test_verify_reads_only_what_is_named(little):
    store, colbuild, digests = little
    flip(store.files(digests["distill old"]) / "weights")
    assert colbuild("cache", "verify", digests["distill a76"][:8]).code == 0
    checked = json.loads(colbuild("cache", "verify", digests["distill old"][:8], "--json").out)
    assert [damaged["steps"] for damaged in checked["damaged"]] == [["distill old"]]


@pytest.mark.parametrize(
    ("name", "told"), [("a76", "is not a digest"), ("0123456789", "no result in the store begins")]
)
def test_verify_of_a_name_that_fits_nothing_says_what_to_give(little, name, told):
    ran = little[1]("cache", "verify", name)
    assert ran.code == EXIT_FAILED
    assert told in ran.err
    assert "colbuild cache ls" in ran.err


# -- pins -------------------------------------------------------------------------------------------------------------


def test_result_is_pinned_and_unpinned_by_its_digest(little):
    store, colbuild, digests = little
    digest = digests["distill old"]
    assert f"Pinned smol: distill old, {digest[:12]}" in colbuild("cache", "pin", digest[:10]).out
    assert "Was pinned already" in colbuild("cache", "pin", digest[:10]).out
    assert f"pin '{digest[:10]}'" in colbuild("cache", "ls").out
    colbuild("cache", "gc", "--delete")
    assert store.verify(digest) is None
    assert "Unpinned distill old" in colbuild("cache", "unpin", "distill", "old").out
    colbuild("cache", "gc", "--delete")
    assert not store.layout.object(digest).exists()


# -- a family ---------------------------------------------------------------------------------------------------------


def test_model_that_is_not_built_cannot_be_pinned(colbuild):
    ran = colbuild("cache", "pin", "least", SPEC)
    assert ran.code == EXIT_FAILED
    assert "distill small of tiny cannot be pinned: it is not in the store" in ran.err
    assert "colbuild build --target 'least'" in ran.err


@pytest.mark.parametrize("direction", ["push", "pull"])
def test_sharing_without_a_remote_says_how_to_name_one(colbuild, monkeypatch, direction):
    monkeypatch.delenv("COLBUILD_REMOTE", raising=False)
    ran = colbuild("cache", direction, SPEC)
    assert ran.code == EXIT_FAILED
    assert "no remote is named" in ran.err
    assert "--remote URL or set COLBUILD_REMOTE" in ran.err


@pytest.mark.slow
def test_build_is_kept_by_its_lock_and_a_pinned_package_outlives_it(built):
    folder, colbuild = built
    store = open_store(folder / ".colbuild")
    # The root is the original's, which the copy does not know.
    assert colbuild("build", SPEC).code == 0
    assert {noted.root.lock for noted in read_roots(store)} >= {str(folder / "specs/tiny.lock")}
    assert "Nothing to remove: 1" in colbuild("cache", "gc", "--lease", "0s").out
    assert "Pinned tiny: export least/tiny-int8" in colbuild("cache", "pin", "least/tiny-int8", SPEC).out
    for root in store.layout.folder("roots").iterdir():
        if str(folder) not in root.read_text():
            root.unlink()
    (folder / "specs/tiny.lock").unlink()
    assert colbuild("cache", "gc", "--lease", "0s", "--delete").code == 0
    [kept] = json.loads(colbuild("cache", "ls", "--json").out)["objects"]
    assert (kept["pin"], kept["steps"]) == ("least/tiny-int8", ["export least/tiny-int8"])
    assert "Unpinned export least/tiny-int8" in colbuild("cache", "unpin", "least/tiny-int8").out


@pytest.mark.slow
def test_family_is_pushed_and_pulled_into_an_empty_store(built, tmp_path):
    folder, colbuild = built
    remote = (tmp_path / "remote").as_uri()
    sent = colbuild("cache", "push", SPEC, "--remote", remote)
    assert sent.code == 0, sent.err
    assert "0 were there already" in sent.out
    shutil.rmtree(folder / ".colbuild")
    got = colbuild("cache", "pull", SPEC, "--remote", remote)
    assert got.code == 0, got.err
    assert "0 were here already" in got.out
    assert "It does not have" not in got.out
    assert colbuild("plan", SPEC, "--exit-code").code == 0


def test_ls_tells_what_compilers_made(little):
    store, colbuild, _ = little
    assert "Compiled code" not in colbuild("cache", "ls").out
    (store.layout.folder("compiled") / "kernel.so").write_bytes(b"1" * 3000)
    assert "Compiled code takes 3.0 kB in compiled/; it may be removed at any time." in colbuild("cache", "ls").out
    assert json.loads(colbuild("cache", "ls", "--json").out)["compiled"] == 3000
