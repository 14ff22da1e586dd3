"""A package in an OCI registry, where images of containers lie too: each file a layer, as `oras pull` brings it back.

The same package gives the same digest. Layers that the registry has already are not sent again.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Final

from colbuild import __version__
from colbuild.errors import BuildError
from colbuild.export.manifest import MANIFEST, Manifest, changed_files, check_files, read_manifest
from colbuild.progress import Progress, Report
from colbuild.store.hashing import TreeEntry, hash_file, scan_tree

KIND: Final = "application/vnd.colbuild.package.v1"
"""What the registry is told that this is."""
_EMPTY: Final = "application/vnd.oci.empty.v1+json"
_IMAGE: Final = "application/vnd.oci.image.manifest.v1+json"
_NAME: Final = "org.opencontainers.image.title"
_MEDIA: Final = {".onnx": "application/onnx", ".json": "application/json", ".md": "text/markdown"}
_OF_THIS_MACHINE: Final = ("localhost", "127.0.0.1", "[::1]")
"""Registries on these are asked without TLS, as Docker does."""
_HINT: Final = "log in with 'docker login' or 'oras login', and check that you may write there"


@dataclass(frozen=True)
class Pushed:
    """A package in a registry: what it is called there, its digest, and how many files and bytes it has."""

    reference: str
    digest: str
    files: int
    size: int


def push_package(folder: Path, reference: str, report: Report) -> Pushed:
    """Sends a package to a registry.

    Args:
        folder: The package.
        reference: Where to: ghcr.io/acme/phone:1.0.
        report: Told after each file.

    Raises:
        BuildError: It is no package or a damaged one, the reference is none, or the registry refuses; or oras is not installed.
    """
    oras = _oras()
    manifest = read_manifest(folder)
    layers = _layers(folder, manifest)
    try:
        container = oras.container.Container(reference)
    except ValueError as error:
        raise BuildError(f"'{reference}' is no place in a registry: {error}", hint=_EXAMPLE) from None
    if not reference.startswith(f"{container.registry}/") or container.digest:
        raise BuildError(f"'{reference}' is no place in a registry", hint=_EXAMPLE)
    client = oras.client.OrasClient(insecure=container.registry.partition(":")[0] in _OF_THIS_MACHINE)
    total = sum(layer["size"] for _, layer in layers)
    try:
        client.auth.load_configs(container)
        done = 0
        for path, layer in layers:
            report(Progress(done, total, "bytes", f"sending {layer['annotations'][_NAME]}"))
            _accepted(client.upload_blob(str(path), container, layer), reference)
            done += layer["size"]
        with oras.provider.temporary_empty_config() as empty:
            config = _config(empty)
            _accepted(client.upload_blob(empty, container, config), reference)
        told = _told(manifest, [layer for _, layer in layers], config)
        answer = client.upload_manifest(told, container)
        _accepted(answer, reference)
    except (OSError, ValueError) as error:
        raise BuildError(f"the registry of {reference} cannot be written to: {error}", hint=_HINT) from None
    return Pushed(reference, answer.headers.get("Docker-Content-Digest", ""), len(layers), total)


_EXAMPLE: Final = "write host/name:tag, as in ghcr.io/acme/phone:1.0"


def _layers(folder: Path, manifest: Manifest) -> list[tuple[Path, dict[str, Any]]]:
    """Each file and how a registry is told of it, by path; one that is not what was built does not leave."""
    check_files(folder, manifest)
    found = scan_tree(folder)
    if changed := changed_files(manifest, found):
        raise BuildError(
            f"{folder / changed[0]} is not what was built: its sha256 is not the manifest's",
            hint="build the package again",
        )
    own = {MANIFEST, *(file.path for file in manifest.files)}
    return [(folder / entry.path, _layer(entry)) for entry in found if entry.path in own]


def _layer(entry: TreeEntry) -> dict[str, Any]:
    return {
        "mediaType": _MEDIA.get(PurePosixPath(entry.path).suffix, "application/octet-stream"),
        "size": entry.size,
        "digest": f"sha256:{entry.sha256}",
        "annotations": {_NAME: entry.path},
    }


def _config(empty: str) -> dict[str, Any]:
    path = Path(empty)
    return {"mediaType": _EMPTY, "size": path.stat().st_size, "digest": f"sha256:{hash_file(path)}"}


def _told(manifest: Manifest, layers: list[dict[str, Any]], config: dict[str, Any]) -> dict[str, Any]:
    """The registry's own manifest; nothing in it differs from one push to the next."""
    annotations = {"org.opencontainers.image.version": __version__, "dev.colbuild.model": manifest.model.sha256}
    if manifest.model.license:
        annotations["org.opencontainers.image.licenses"] = manifest.model.license
    return {
        "schemaVersion": 2,
        "mediaType": _IMAGE,
        "artifactType": KIND,
        "config": config,
        "layers": layers,
        "annotations": annotations,
    }


def _accepted(answer: Any, reference: str) -> None:
    if answer.status_code not in (200, 201, 202):
        said = _said(answer)
        raise BuildError(f"the registry of {reference} refuses: {answer.status_code} {said}".rstrip(), hint=_HINT)


def _said(answer: Any) -> str:
    """A registry's own words, where it has any."""
    try:
        [first, *_] = json.loads(answer.text)["errors"]
        return str(first.get("message") or first.get("code") or "")
    except (ValueError, KeyError, TypeError):
        return str(answer.reason or "")


def _oras() -> Any:
    try:
        import oras.client
        import oras.container
        import oras.provider
    except ImportError:
        raise BuildError(
            "a registry is written to with oras", hint='install it with: pip install "colbuild[oci]"'
        ) from None
    return oras
