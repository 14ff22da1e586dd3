"""A package as one file."""

from __future__ import annotations

import io
import os
import re
import shutil
import tarfile
from pathlib import Path

import pytest
import zstandard

from colbuild.errors import BuildError
from colbuild.export.package.packed import pack, unpacked
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


def test_what_the_manifest_does_not_list_stays_behind(int8_package: Path, tmp_path: Path):
    """What `pack` writes is what `verify` takes: notes beside a package are not part of it, and a changed file is told."""
    copy = Path(shutil.copytree(int8_package, tmp_path / "copy"))
    (copy / "notes.txt").write_text("of my own")
    assert pack(copy, tmp_path / "copy.tar.zst") == pack(int8_package, tmp_path / "plain.tar.zst")
    tokenizer = copy / "tokenizer.json"
    tokenizer.write_text(tokenizer.read_text().replace("{", "[", 1))
    with pytest.raises(BuildError, match=r"tokenizer\.json has changed since the build"):
        pack(copy, tmp_path / "changed.tar.zst")


def test_a_folder_is_itself(int8_package: Path):
    with unpacked(int8_package) as folder:
        assert folder == int8_package


def written(file: Path, members: list[tuple[tarfile.TarInfo, bytes]], kind: int = tarfile.USTAR_FORMAT) -> Path:
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w", format=kind) as tar:
        for entry, content in members:
            tar.addfile(entry, io.BytesIO(content))
    file.write_bytes(zstandard.compress(raw.getvalue()))
    return file


def member(name: str, content: bytes = b"", **more: object) -> tuple[tarfile.TarInfo, bytes]:
    entry = tarfile.TarInfo(name)
    entry.size = len(content)
    for key, value in more.items():
        setattr(entry, key, value)
    return entry, content


def members_of(package: Path) -> list[tuple[tarfile.TarInfo, bytes]]:
    return [member(name, content) for name, content in files(package).items()]


def refusal(file: Path) -> str:
    with pytest.raises(BuildError, match="is not a packed package") as caught, unpacked(file):
        pass
    return caught.value.message


HOSTILE = {
    "parent": ([member("../outside", b"x")], "'../outside' is not a path inside the archive"),
    "absolute": ([member("/tmp/outside", b"x")], "'/tmp/outside' is not a path inside the archive"),
    "dot": ([member("a/./b", b"x")], "is not a path inside the archive"),
    "backslash": ([member("a\\..\\b", b"x")], "is not a path inside the archive"),
    "link": ([member("a", type=tarfile.SYMTYPE, linkname="/tmp")], "'a' in it is a symbolic link"),
    "hard link": ([member("a", type=tarfile.LNKTYPE, linkname="manifest.json")], "'a' in it is a hard link"),
    "device": ([member("a", type=tarfile.CHRTYPE)], "'a' in it is a device"),
    "pipe": ([member("a", type=tarfile.FIFOTYPE)], "'a' in it is a pipe"),
    "twice": ([member("README.md", b"x")], "'README.md' is in the archive twice"),
    "too much": ([member("zeros", bytes(40_000_000))], "more than its manifest lists"),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_a_hostile_member_is_refused_before_anything_is_written(case, int8_package: Path, tmp_path: Path, monkeypatch):
    def never(*_):
        raise AssertionError("something is written")

    monkeypatch.setattr("colbuild.unpack.Target.__enter__", never)
    hostile, told = HOSTILE[case]
    assert told in refusal(written(tmp_path / "bad.tar.zst", [*members_of(int8_package), *hostile]))


def test_headers_that_pack_does_not_write_are_refused(int8_package: Path, tmp_path: Path):
    long = [*members_of(int8_package), member("x" * 200, b"x")]
    for kind in (tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
        assert "a package holds regular files only" in refusal(written(tmp_path / "bad.tar.zst", long, kind))


def test_a_small_file_does_not_become_a_large_one(tmp_path: Path):
    entry = tarfile.TarInfo("zeros")
    entry.size = 3 << 30
    packer = zstandard.ZstdCompressor(level=1).compressobj()
    file = tmp_path / "bomb.tar.zst"
    with file.open("wb") as raw:
        raw.write(packer.compress(entry.tobuf(tarfile.USTAR_FORMAT)))
        for _ in range(200):
            raw.write(packer.compress(bytes(1 << 20)))
        raw.write(packer.flush())
    assert re.search(r"a file of [\d.]+ kB unpacks to more than [\d.]+ MB, the limit", refusal(file))


def test_a_window_larger_than_the_bound_is_refused(tmp_path: Path):
    parameters = zstandard.ZstdCompressionParameters(window_log=30, write_content_size=False)
    packer = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
    file = tmp_path / "window.tar.zst"
    file.write_bytes(packer.compress(bytes(1024)) + packer.flush())
    assert "memory" in refusal(file)


def test_a_file_larger_than_its_manifest_says_is_refused(int8_package: Path, tmp_path: Path):
    larger = [member(name, content + b"x" * (name == "README.md")) for name, content in files(int8_package).items()]
    assert re.search(r"'README.md' has [\d,]+ bytes in it, the manifest says", refusal(written(tmp_path / "x", larger)))


def test_an_archive_that_ends_early_is_refused(int8_package: Path, tmp_path: Path):
    whole = written(tmp_path / "x", members_of(int8_package))
    raw = zstandard.decompress(whole.read_bytes())
    for cut in (700, 5_000, len(raw) // 2):
        whole.write_bytes(zstandard.compress(raw[:cut]))
        assert "it ends within" in refusal(whole) or "truncated header" in refusal(whole)


def test_an_archive_with_folders_is_read(int8_package: Path, tmp_path: Path):
    folders = [member(name, type=tarfile.DIRTYPE) for name in (".", "onnx", "empty/inner")]
    file = written(
        tmp_path / "x", [*folders, *((member(f"./{entry.name}", data)) for entry, data in members_of(int8_package))]
    )
    with unpacked(file) as folder:
        assert files(folder) == files(int8_package)
        assert (folder / "empty/inner").is_dir()


def test_what_is_no_archive_is_told(tmp_path: Path):
    file = tmp_path / "bad.tar.zst"
    file.write_bytes(b"nothing of the kind")
    with pytest.raises(BuildError, match="is not a packed package"), unpacked(file):
        pass


def test_what_is_no_package_is_not_packed(tmp_path: Path):
    with pytest.raises(BuildError, match="is not a package"):
        pack(tmp_path, tmp_path / "x.tar.zst")
