"""Opens the place that the URL of a remote cache names."""

from __future__ import annotations

import re
from typing import Any, Final

from colbuild.errors import BuildError
from colbuild.store.remote.remote_calls import Calls, RemoteError, in_thread, shown
from colbuild.store.remote.remote_files import RemoteFiles

_EXTRAS: Final = {"s3": "s3", "s3a": "s3", "gs": "gcs", "gcs": "gcs"}


def open_files(url: str, timeout: float, pauses: tuple[float, ...]) -> RemoteFiles:
    """The files below an fsspec URL; most file systems connect only when they are used.

    Raises:
        BuildError: It is no URL, its protocol is unknown, or a package for it is missing.
        RemoteError: It does not answer.
    """
    name, secrets = shown(url)
    protocol, rest = protocol_of(url), url.partition("://")[2]
    from fsspec.core import url_to_fs

    calls = Calls(name, timeout, pauses, secrets)
    try:
        options = {"get_client": _http_client()} if protocol in ("http", "https") else {}
        fs, base = calls.once("be used", lambda: in_thread(lambda: url_to_fs(url, **options)))
    except RemoteError as error:
        cause = error.__cause__
        if isinstance(cause, ImportError):
            extra = _EXTRAS.get(protocol)
            install = f"pip install 'colbuild[{extra}]'" if extra else "look up the package in fsspec's documentation"
            raise BuildError(f"{name} cannot be used: a package for {protocol}:// is missing", hint=install) from error
        if isinstance(cause, ValueError) and "rotocol" in str(cause):
            hint = "use file://, s3:// or gs://, or another protocol that fsspec knows"
            raise BuildError(f"{name} cannot be used: the protocol {protocol}:// is unknown", hint=hint) from error
        if cause is None or isinstance(cause, OSError):
            raise
        raise BuildError(error.message) from error
    base = str(base).rstrip("/")
    if not rest.strip("/") or not base:
        raise BuildError(f"{name} has no bucket or folder", hint=f"write {protocol}://… with a bucket or folder")
    return RemoteFiles(calls, fs, base)


def protocol_of(url: str) -> str:
    """The protocol that a URL begins with.

    Raises:
        BuildError: It is no URL.
    """
    protocol, separator, _ = url.partition("://")
    if not separator or not re.fullmatch(r"[A-Za-z][A-Za-z0-9+.:-]*", protocol):
        name, _ = shown(url)
        raise BuildError(
            f"'{name}' is not a URL, so it cannot be a remote", hint="write file:///folder, s3://bucket/folder, …"
        )
    return protocol


def _http_client() -> Any:
    try:
        from colbuild.store.remote.remote_http import bounded_client
    except ImportError as error:
        hint = "look up the package in fsspec's documentation"
        raise BuildError("a package for http:// and https:// is missing", hint=hint) from error
    return bounded_client
