"""Reads HTTP answers with a limit on their size, including the bodies of redirects, which `requests` reads itself."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import requests
from requests.adapters import HTTPAdapter
from urllib3.util import Retry

from colbuild.arriving import PLAIN_ENCODINGS, Bound, BoundError, Meter
from colbuild.bounds import ANSWER_BYTES, UNDECLARED_BYTES

_BLOCK: Final = 1 << 16
_ENCODINGS: Final = PLAIN_ENCODINGS | {"gzip", "x-gzip", "deflate"}
"""A block of these grows a thousandfold at most, and of others, or of several in a row, without end."""
ACCEPTED: Final = "gzip, deflate"
"""The header Accept-Encoding that fits."""
ANSWER: Final = Bound(ANSWER_BYTES, "the limit of a server's answer")
_UNDECLARED: Final = Bound(UNDECLARED_BYTES, "the limit of a file without a declared size")


class BoundedAdapter(HTTPAdapter):
    """Reads answers up to a bound; of those that are streamed, up to the length that their header says.

    Args:
        retries: How often a failed connection is tried again.
        answer: The bound of what is not streamed.
        seconds: How long a server may be silent, where whoever asks does not say.
    """

    def __init__(self, retries: Retry, answer: Bound = ANSWER, seconds: float | None = None) -> None:
        self._answer, self._seconds = answer, seconds
        super().__init__(max_retries=retries)

    def send(
        self,
        request: requests.PreparedRequest,
        stream: bool = False,
        timeout: float | tuple[float | None, float | None] | None = None,
        verify: bool | str = True,
        cert: str | tuple[str, str] | None = None,
        proxies: dict[str, str] | None = None,
    ) -> requests.Response:
        """Sends a request, as the class above does."""
        # Streamed in any case: the session reads the rest of what nobody wants as a stream.
        timeout = self._seconds if timeout is None else timeout
        response = super().send(request, stream=True, timeout=timeout, verify=verify, cert=cert, proxies=proxies)
        encoding = response.headers.get("Content-Encoding", "").strip().lower()
        if encoding not in _ENCODINGS:
            response.close()
            raise BoundError(f"it has a compression that was not requested ({encoding[:40]!a})")
        response.raw = _Bounded(response.raw, self._bound(response, stream))
        return response

    def _bound(self, response: requests.Response, stream: bool) -> Bound:
        if response.is_redirect:
            return ANSWER
        if not stream:
            return self._answer
        length = response.headers.get("Content-Length", "")
        if response.headers.get("Content-Encoding") is None and length.isascii() and length.isdigit():
            return Bound(int(length[:19]), "the size that the server declares")
        return _UNDECLARED


class _Bounded:
    """A response's content, as `requests` reads it from any file-like object."""

    def __init__(self, raw: Any, bound: Bound) -> None:
        self._raw = raw
        # Of a response of its own, which decodes, and turns the library's errors into those of requests.
        inner = requests.Response()
        inner.raw = raw
        self._blocks: Iterator[bytes] = Meter(bound).counting(inner.iter_content(_BLOCK))

    def read(self, _: int = -1, decode_content: bool = True) -> bytes:
        """The next block; empty at the end."""
        return next(self._blocks, b"")

    def close(self) -> None:
        """Closes the connection."""
        self._raw.close()

    def release_conn(self) -> None:
        """Gives the connection back."""
        self._raw.release_conn()
