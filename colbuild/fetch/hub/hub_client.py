"""The hub's client with limits: every answer is counted as it arrives."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from typing import Any, Final
from urllib.parse import quote

from huggingface_hub import constants, errors, get_session, set_client_factory
from huggingface_hub.utils import build_hf_headers, hf_raise_for_status  # type: ignore[attr-defined]

from colbuild.arriving import PLAIN_ENCODINGS, Bound, BoundError, Meter
from colbuild.bounds import ANSWER_BYTES, LISTING_BYTES, MEMBERS
from colbuild.documents import MalformedError, parse_json
from colbuild.spec.sources.source_kinds import HubSource, is_plain_path

_HTTP: Final[Any] = sys.modules[errors.HfHubHTTPError.__bases__[0].__module__.partition(".")[0]]
"""The HTTP library of the installed client: httpx, or httpx2."""
FAILURES: Final[tuple[type[Exception], ...]] = (
    *(*errors.HfHubHTTPError.__bases__, OSError, _HTTP.InvalidURL),
    *(ValueError, RuntimeError, TypeError, KeyError, AttributeError, AssertionError),
)
"""The bases are that library's errors, such as a lost connection; the last ones come of answers that nobody expects."""
_ANSWER: Final = Bound(ANSWER_BYTES, "the limit of a hub's answer")
_LISTING: Final = Bound(LISTING_BYTES, "the limit of a hub's list of files")
_FILE: ContextVar[Bound | None] = ContextVar("colbuild_hub_file", default=None)
_LOOK_SECONDS: Final = 30.0
_COMMIT_LETTERS: Final = frozenset("0123456789abcdef")
_CONTROLS: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\\]")
_LARGEST_FILE: Final = 1 << 44
_LONGEST_PATH: Final = 1024
_REFUSED_HEADERS: Final = ("X-HF-Warning", "Retry-After", "RateLimit", "RateLimit-Policy")
"""Headers that the client would print, or wait as long as they say for."""


@contextmanager
def file_bound(bound: Bound) -> Iterator[None]:
    """Limits the client's reads in this block and thread to the size of one file, and its redirects."""
    token = _FILE.set(bound)
    try:
        yield
    finally:
        _FILE.reset(token)


def list_files(source: HubSource, revision: str) -> tuple[dict[str, int | None], str]:
    """Every file of the repository with its size, None if that is not said, and the commit that the revision means.

    Raises:
        BoundError: The answer is too large, or stalls.
        MalformedError: It is no list of files.
        OSError: As the client raises it.
    """
    endpoint = (os.environ.get("HF_ENDPOINT") or constants.ENDPOINT).rstrip("/")
    address = f"{endpoint}/api/{source.kind}s/{source.repo}/revision/{quote(revision, safe='')}"
    prepare()
    headers = build_hf_headers()
    with file_bound(_LISTING):
        answer = get_session().get(address, headers=headers, params={"blobs": "true"}, timeout=_LOOK_SECONDS)
    hf_raise_for_status(answer)
    return _listed(parse_json(answer.content))


def _listed(answer: Any) -> tuple[dict[str, int | None], str]:
    if not isinstance(answer, Mapping):
        raise MalformedError("it is not a description of a repository")
    commit, entries = answer.get("sha"), answer.get("siblings") or []
    if not isinstance(commit, str) or not _COMMIT_LETTERS.issuperset(commit) or len(commit) != 40:
        raise MalformedError("it does not name the commit of the revision")
    if not isinstance(entries, list) or len(entries) > MEMBERS:
        raise MalformedError(f"it is not a list of at most {MEMBERS:,} files")
    return dict(_file(entry) for entry in entries), commit


def _file(entry: Any) -> tuple[str, int | None]:
    if not isinstance(entry, Mapping) or not isinstance(entry.get("rfilename"), str):
        raise MalformedError("it lists an entry that is not a file")
    name, size = entry["rfilename"], entry.get("size")
    # A name that leads elsewhere cannot come from git; whoever answers with one is not to be believed.
    if not is_plain_path(name) or _CONTROLS.search(name) or len(name) > _LONGEST_PATH:
        raise MalformedError(f"it lists a file outside of its repository, {name[:80]!a}")
    if size is not None and (type(size) is not int or not 0 <= size <= _LARGEST_FILE):
        raise MalformedError(f"it lists a file with an impossible size, {size!a:.80}")
    return name, size


@cache
def prepare() -> None:
    """Lets the client make its connections with the bounds; once in a process."""
    own = get_session().event_hooks
    hooks = {"request": [*own["request"], _asked], "response": [*own["response"], _answered]}
    set_client_factory(lambda: _HTTP.Client(event_hooks=hooks, follow_redirects=True, timeout=None))


def _asked(request: Any) -> None:
    # A few bytes that are compressed may become any number.
    request.headers["Accept-Encoding"] = "identity"


def _answered(response: Any) -> None:
    headers = response.headers
    encoding = headers.get("Content-Encoding", "").strip().lower()
    if encoding not in PLAIN_ENCODINGS and response.request.method != "HEAD":
        raise BoundError(f"it has a compression that was not requested ({encoding[:40]!a})")
    for name in _REFUSED_HEADERS:
        headers.pop(name, None)
    for name in ("ETag", "X-Linked-Etag"):
        # The client makes a file's name of it.
        if set("/\\\0") & set(headers.get(name, "").removeprefix("W/")) or len(headers.get(name, "")) > 200:
            raise BoundError(f"its header {name} is not a file name")
    is_file = response.status_code < 300 and _FILE.get() is not None
    response.stream = _Counted(response.stream, (_FILE.get() if is_file else None) or _ANSWER)


class _Counted(_HTTP.SyncByteStream):  # type: ignore[misc]
    """The bytes of an answer, counted."""

    def __init__(self, stream: Any, bound: Bound) -> None:
        self._stream, self._bound = stream, bound

    def __iter__(self) -> Iterator[bytes]:
        return Meter(self._bound).counting(iter(self._stream))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def close(self) -> None:
        """Closes the connection."""
        self._stream.close()
