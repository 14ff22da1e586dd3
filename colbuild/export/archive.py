"""A package as one file: a tar of its files in order, without times, owners and modes, compressed by zstandard.

The same package gives the same bytes: what could differ is left out, and one thread compresses.
"""

from __future__ import annotations

import os
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

from colbuild.errors import BuildError
from colbuild.export.manifest import check_files, read_manifest
from colbuild.store.hashing import hash_file, walk_files

SUFFIX: Final = ".tar.zst"
LEVEL: Final = 10
"""Weights hardly shrink, whatever is tried; the tokenizer and the graph do."""
_MODE: Final = 0o644


def pack(folder: Path, file: Path) -> str:
    """Writes a package into one file, and returns that file's sha256.

    Raises:
        BuildError: The folder is no package, the file cannot be written, or zstandard is not installed.
    """
    zstandard = _zstandard()
    check_files(folder, read_manifest(folder))
    draft = file.with_name(f".{file.name}.{os.getpid()}")
    try:
        with (
            draft.open("wb") as raw,
            zstandard.ZstdCompressor(level=LEVEL).stream_writer(raw, closefd=False) as packed,
            tarfile.open(fileobj=packed, mode="w|", format=tarfile.USTAR_FORMAT) as tar,
        ):
            for path in walk_files(folder):
                _add(tar, folder, path)
        draft.replace(file)
    except OSError as error:
        raise BuildError(f"{file} cannot be written: {error.strerror}") from None
    finally:
        draft.unlink(missing_ok=True)
    return hash_file(file)


def _add(tar: tarfile.TarFile, folder: Path, path: str) -> None:
    entry = tarfile.TarInfo(path)
    entry.size, entry.mode = (folder / path).stat().st_size, _MODE
    with (folder / path).open("rb") as content:
        tar.addfile(entry, content)


@contextmanager
def unpacked(package: Path) -> Iterator[Path]:
    """A package's folder: the one that is given, or for the time being what lies in a file of `pack`.

    Raises:
        BuildError: The file is no archive, or one with something else in it than files inside its folder.
    """
    if not package.is_file():
        yield package
        return
    zstandard = _zstandard()
    with TemporaryDirectory(prefix="colbuild-") as temporary:
        try:
            with (
                package.open("rb") as raw,
                zstandard.ZstdDecompressor().stream_reader(raw) as content,
                tarfile.open(fileobj=content, mode="r|") as tar,
            ):
                # The filter refuses links, devices, and paths that lead out.
                tar.extractall(temporary, filter="data")
        except (OSError, tarfile.TarError, zstandard.ZstdError) as error:
            raise BuildError(
                f"{package} is not a packed package: {error}",
                hint="give a package's folder, or what 'colbuild pack' wrote",
            ) from None
        yield Path(temporary)


def _zstandard() -> Any:
    try:
        import zstandard
    except ImportError:
        raise BuildError(
            f"a package as one file ({SUFFIX}) needs zstandard", hint='install it with: pip install "colbuild[archive]"'
        ) from None
    return zstandard
