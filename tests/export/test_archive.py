"""A package as one file."""

from __future__ import annotations

import io
import os
import shutil
import tarfile
from pathlib import Path

import pytest
import zstandard

from colbuild.errors import BuildError
from colbuild.export.archive import pack, unpacked
from tests.export.helpers import files


def test_the_same_package_gives_the_same_bytes_and_comes_back(int8_package: Path, tmp_path: Path):
    copy = Path(shutil.copytree(int8_package, tmp_path / "copy"))
    for path in copy.rglob("*"):
        os.utime(path, (1, 1))
        path.chmod(0o755 if path.is_dir() else 0o600)
    digests = {pack(folder, tmp_path / f"{place}.tar.zst") for place, folder in enumerate((int8_package, copy))}
    assert len(digests) == 1
    with unpacked(tmp_path / "0.tar.zst") as folder:
        assert files(folder) == files(int8_package)
    assert not folder.exists()
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_a_folder_is_itself(int8_package: Path):
    with unpacked(int8_package) as folder:
        assert folder == int8_package


@pytest.mark.parametrize("name", ["../outside", "/tmp/outside"])
def test_paths_that_lead_out_are_refused_or_kept_inside(name: str, tmp_path: Path):
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w") as tar:
        entry = tarfile.TarInfo(name)
        entry.size = 1
        tar.addfile(entry, io.BytesIO(b"x"))
    file = tmp_path / "bad.tar.zst"
    file.write_bytes(zstandard.compress(raw.getvalue()))
    try:
        with unpacked(file) as folder:
            assert all(path.is_relative_to(folder) for path in folder.rglob("*"))
    except BuildError as error:
        assert "is not a packed package" in error.message
    assert not (tmp_path.parent / "outside").exists()
    assert not Path("/tmp/outside").exists()


def test_what_is_no_archive_is_told(tmp_path: Path):
    file = tmp_path / "bad.tar.zst"
    file.write_bytes(b"nothing of the kind")
    with pytest.raises(BuildError, match="is not a packed package"), unpacked(file):
        pass


def test_what_is_no_package_is_not_packed(tmp_path: Path):
    with pytest.raises(BuildError, match="is not a package"):
        pack(tmp_path, tmp_path / "x.tar.zst")
