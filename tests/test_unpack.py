"""Files out of an archive are written inside their folder, or not at all."""

from __future__ import annotations

import io
from pathlib import Path

import pytest

from colbuild.unpack import Bounded, Target, UnpackError, inner_parts


@pytest.mark.parametrize(
    "name", ["", ".", "..", "/a", "a//b", "a/../b", "a/", "./a", "a\\b", "a\0b", "\ud800", "x" * 256]
)
def test_names_that_are_no_file_inside_are_refused(name):
    with pytest.raises(UnpackError):
        inner_parts(name)


def test_links_that_are_there_are_not_followed(tmp_path: Path):
    outside, inside = tmp_path / "outside", tmp_path / "inside"
    outside.mkdir()
    inside.mkdir()
    (inside / "link").symlink_to(outside)
    (inside / "file").symlink_to(outside / "written")
    with Target(inside, files=9, size=9) as target:
        for name in ("link/x", "file"):
            with pytest.raises(UnpackError):
                target.write(name, io.BytesIO(b"x"))
    assert list(outside.iterdir()) == []


def test_counts_and_sizes_are_bounded(tmp_path: Path):
    with Target(tmp_path, files=3, size=4) as target:
        assert target.write("a/b", io.BytesIO(b"1234567"), 3) == 3
        with pytest.raises(UnpackError, match="'a/b' is in the archive twice"):
            target.write("a/b", io.BytesIO(b""))
        with pytest.raises(UnpackError, match="more than 4 B"):
            target.write("c", io.BytesIO(b"12"))
        with pytest.raises(UnpackError, match="more than 3 files"):
            target.write("d", io.BytesIO(b""))
    with Target(tmp_path, files=3, size=99) as target:
        with pytest.raises(UnpackError, match="is inside a file"):
            target.write("a/b/c", io.BytesIO(b""))
        with pytest.raises(UnpackError, match="ends within 'e'"):
            target.write("e", io.BytesIO(b"12"), 3)


def test_a_stream_ends_with_an_error_beyond_its_bound():
    with pytest.raises(UnpackError, match="it has more than 3 B"):
        Bounded(io.BytesIO(b"1234"), 3, "it has").exactly(4)
    assert Bounded(io.BytesIO(b"123"), 3, "it has").exactly(9) == b"123"
