"""Packages: found, asked, verified, packed, sent and measured, each in a function of its own."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from colbuild.errors import BuildError
from colbuild.progress import Report, silent

if TYPE_CHECKING:
    from colbuild.export.package.registry import Pushed
    from colbuild.export.package.verify import Verified
    from colbuild.export.runtime.bench import Speed
    from colbuild.export.runtime.generation import Generation


def find_package(given: Path) -> Path:
    """The package that a folder is, or holds as the only one; see `colbuild.export.package.locate`.

    Raises:
        BuildError: There is no package, or several.
    """
    from colbuild.export.package.locate import find_package as find

    return find(given)


def answer(
    package: Path,
    prompt: str,
    *,
    max_tokens: int,
    temperature: float = 0.0,
    seed: int = 0,
    threads: int | None = None,
    chat: bool = True,
) -> Generation:
    """Answers a prompt in a process of its own, token by token; see `colbuild.export.runtime.guard`.

    Raises:
        BuildError: It is no package, it is damaged, or the prompt is no text or does not fit.
    """
    from colbuild.export.package.manifest import check_files, read_manifest
    from colbuild.export.runtime.guard import answer_package

    try:
        prompt.encode()
    except UnicodeEncodeError:
        raise BuildError("the prompt is not UTF-8 text", hint="write it in UTF-8") from None
    folder = find_package(package)
    manifest = read_manifest(folder)
    check_files(folder, manifest)
    asked = {"max_tokens": max_tokens, "temperature": temperature, "seed": seed, "chat": chat}
    return answer_package(folder, manifest, prompt, threads=threads, **asked)


def verify_package(package: Path) -> Verified:
    """Whether a package is whole and computes what it did when it was built; see `colbuild.export.package.verify`.

    Raises:
        BuildError: It is no package, or its manifest is damaged.
    """
    from colbuild.export.package.verify import verify_package as verify

    return verify(find_package(package))


def pack_package(package: Path, file: Path) -> str:
    """Writes a package into one file and returns its sha256; see `colbuild.export.package.packed`.

    Raises:
        BuildError: It is no package, or the file cannot be written.
    """
    from colbuild.export.package.packed import pack

    return pack(find_package(package), file)


def push_package(package: Path, reference: str, report: Report = silent) -> Pushed:
    """Sends a package to an OCI registry; see `colbuild.export.package.registry`.

    Raises:
        BuildError: It is no package, or the registry refuses it.
    """
    from colbuild.export.package.registry import push_package as push

    return push(find_package(package), reference, report)


def bench_package(
    package: Path, threads: Sequence[int | None], prompt_tokens: int = 256, new_tokens: int = 64
) -> tuple[Speed, ...]:
    """How fast a package is on this machine and how much memory it takes; see `colbuild.export.runtime.bench`.

    Raises:
        BuildError: It is no package, or it cannot be run.
    """
    from colbuild.export.runtime.bench import bench_package as bench

    return bench(find_package(package), threads, prompt_tokens, new_tokens)
