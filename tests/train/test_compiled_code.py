"""Compiled code that is not what was written is compiled again: no checksum of the compiler's own would tell."""

from __future__ import annotations

import os

import pytest

from colbuild.train.compiled_code import NOTE, sound_cache


@pytest.fixture
def cache(tmp_path):
    """A cache in which a training left two files."""
    folder = tmp_path / "compiled"
    with sound_cache(folder):
        (folder / "aa").mkdir()
        (folder / "aa/kernel.so").write_bytes(b"machine code")
        (folder / "graph").write_bytes(b"pickled graph")
    return folder


def names(folder):
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file() and path.name[0] != "."}


def used(folder):
    """The files that a training finds."""
    with sound_cache(folder):
        return names(folder)


def test_what_is_as_it_was_written_is_used_again(cache):
    assert used(cache) == used(cache) == {"aa/kernel.so", "graph"}


def test_flipped_bit_costs_a_compilation_though_times_and_size_stay(cache):
    path = cache / "aa/kernel.so"
    status = path.stat()
    path.write_bytes(b"machine bode")
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert used(cache) == {"graph"}


@pytest.mark.parametrize("content", [b"", b"{}", b"[", b'{"files": 3, "check": ""}'])
def test_damaged_note_costs_everything(cache, content):
    (cache / NOTE).write_bytes(content)
    assert used(cache) == set()


def test_what_a_killed_training_left_is_not_believed(cache):
    (cache / "half.so").write_bytes(b"half")
    assert used(cache) == {"aa/kernel.so", "graph"}


def test_training_beside_another_removes_nothing_that_the_other_has_just_written(cache):
    with sound_cache(cache):
        (cache / "new.so").write_bytes(b"new")
        with sound_cache(cache):
            assert names(cache) == {"aa/kernel.so", "graph", "new.so"}
    assert used(cache) == {"aa/kernel.so", "graph", "new.so"}
