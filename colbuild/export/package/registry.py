"""Sends a package to an OCI registry, each file as a layer; `oras pull` fetches it.

The same package gives the same digest. Layers that the registry has already are not sent again.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from types import MethodType
from typing import Any, Final

from urllib3.util import Retry

from colbuild import __version__
from colbuild.bounded_requests import BoundedAdapter
from colbuild.bounds import REDIRECTS, REGISTRY_SECONDS
from colbuild.documents import parse_json
from colbuild.errors import BuildError
from colbuild.export.manifest import Manifest, own_files, read_manifest
from colbuild.hashing import TreeEntry, hash_file
from colbuild.progress import Progress, Report

KIND: Final = "application/vnd.colbuild.package.v1"
"""What the registry is told that this is."""
_EMPTY: Final = "application/vnd.oci.empty.v1+json"
_IMAGE: Final = "application/vnd.oci.image.manifest.v1+json"
_NAME: Final = "org.opencontainers.image.title"
_MEDIA: Final = {".onnx": "application/onnx", ".json": "application/json", ".md": "text/markdown"}
_OF_THIS_MACHINE: Final = ("localhost", "127.0.0.1", "[::1]")
"""Registries on these are asked without TLS, as Docker does."""
_DIGEST: Final = re.compile("sha256:[0-9a-f]{64}")
_LONGEST_REASON: Final = 200
_UNUSUAL: Final = (ValueError, RuntimeError, TypeError, LookupError, AttributeError, AssertionError)
"""What the client raises of itself where an answer is not as it expects."""
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
        raise BuildError(f"'{reference}' is not a reference to a registry: {error}", hint=_EXAMPLE) from None
    if not reference.startswith(f"{container.registry}/") or container.digest:
        raise BuildError(f"'{reference}' is not a reference to a registry", hint=_EXAMPLE)
    client = _client(oras, insecure=container.registry.partition(":")[0] in _OF_THIS_MACHINE)
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
    except (OSError, *_UNUSUAL, oras.auth.AuthenticationException) as error:
        reason = " ".join(str(error).split())[:_LONGEST_REASON] or type(error).__name__
        raise BuildError(f"the registry of {reference} cannot be written to: {reason}", hint=_HINT) from None
    digest = answer.headers.get("Docker-Content-Digest", "")
    return Pushed(reference, digest if _DIGEST.fullmatch(digest) else "", len(layers), total)


def _client(oras: Any, *, insecure: bool) -> Any:
    """A client whose answers have bounds, and that gives up soon: its own retries take two minutes where nobody answers."""
    client = oras.client.OrasClient(insecure=insecure)
    client.do_request = MethodType(oras.provider.Registry.do_request.__wrapped__, client)
    client.session.max_redirects = REDIRECTS
    for prefix in ("http://", "https://"):
        retries = Retry(connect=2, read=False, redirect=False, backoff_factor=0.5, respect_retry_after_header=False)
        client.session.mount(prefix, BoundedAdapter(retries, seconds=REGISTRY_SECONDS))
    return client


_EXAMPLE: Final = "write host/name:tag, as in ghcr.io/acme/phone:1.0"


def _layers(folder: Path, manifest: Manifest) -> list[tuple[Path, dict[str, Any]]]:
    """Each file and how a registry is told of it, by path; one that is not what was built does not leave."""
    return [(folder / entry.path, _layer(entry)) for entry in own_files(folder, manifest)]


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
        first = parse_json(answer.content)["errors"][0]
        return str(first.get("message") or first.get("code") or "")[:_LONGEST_REASON]
    except (ValueError, LookupError, TypeError, AttributeError):
        return str(answer.reason or "")[:_LONGEST_REASON]


def _oras() -> Any:
    try:
        import oras.auth
        import oras.client
        import oras.container
        import oras.provider
    except ImportError:
        raise BuildError(
            "pushing to a registry needs oras", hint='install it with: pip install "colbuild[oci]"'
        ) from None
    return oras
