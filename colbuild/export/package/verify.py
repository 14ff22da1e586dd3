"""Verifies a package: its files' digests, and a generated sample; needs onnxruntime alone."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from colbuild.export.manifest import Manifest, changed_files, check_files, read_manifest
from colbuild.export.package.packed import unpacked
from colbuild.export.runtime.guard import try_package
from colbuild.hashing import scan_tree
from colbuild.plan.steps.export import MANIFEST

CLEAR: Final = 0.05
"""A lead of the chosen token's logit below which another processor may rightly choose the second."""


@dataclass(frozen=True)
class Verified:
    """The result of verifying a package.

    Attributes:
        package: Its folder, or the file that it was packed into.
        manifest: What it says of itself.
        files: How many files have the digests that they should have.
        size: Bytes of all files.
        tokens: How many tokens of the sample generation came out the same.
        problems: What is wrong, each with its file; none if the package is sound.
        remarks: What is worth knowing and no fault.
    """

    package: Path
    manifest: Manifest = field(repr=False)
    files: int
    size: int
    tokens: int
    problems: tuple[str, ...]
    remarks: tuple[str, ...]


def verify_package(package: Path) -> Verified:
    """Checks manifest, digests, and a generation against the manifest's; of a folder, or of what `pack` made of it.

    Raises:
        BuildError: It is no package, its manifest is damaged or names files that are not there or lie outside, or it holds
            something that is neither a file nor a folder.
    """
    with unpacked(package) as folder:
        return _verified(package, folder)


def _verified(package: Path, folder: Path) -> Verified:
    manifest = read_manifest(folder)
    check_files(folder, manifest)
    listed = {file.path for file in manifest.files}
    found = scan_tree(folder)
    changed = changed_files(manifest, found)
    problems = [
        f"{package / path} has changed since the build: its sha256 differs from the manifest's" for path in changed
    ]
    problems += [
        f"{package / path} does not belong to the package: the manifest does not list it"
        for path in (entry.path for entry in found)
        if path not in listed and path != MANIFEST
    ]
    same = 0
    remarks: list[str] = []
    # A graph that is not the package's own is not run.
    if manifest.graph.file not in changed:
        same, said, remarks = _generation(folder, manifest)
        problems += [f"{package / manifest.graph.file} {what}" for what in said]
    size = sum(entry.size for entry in found)
    return Verified(package, manifest, len(listed), size, same, tuple(problems), tuple(remarks))


def _generation(folder: Path, manifest: Manifest) -> tuple[int, list[str], list[str]]:
    """How many tokens of the sample came out the same; what is wrong; what is worth knowing."""
    [leads] = try_package(folder, manifest, "sampled")
    # NaN is no close call either.
    wrong = [(place, lead) for place, lead in enumerate(leads) if not lead <= CLEAR]
    close = sum(0.0 < lead <= CLEAR for lead in leads)
    problems = [
        f"generates other tokens: token {place + 1} of the manifest's sample trails another by {lead:.2g}"
        for place, lead in wrong[:1]
    ]
    remarks = [f"{close} of {len(leads)} tokens were near-ties that changed on this processor"] if close else []
    return len(leads) - len(wrong) - close, problems, remarks
