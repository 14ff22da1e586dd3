"""An HTTP session with pip's settings: credentials, certificates, proxy, timeout and retries."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from os.path import commonpath
from typing import Final
from urllib.parse import unquote, urlsplit, urlunsplit

import requests
from requests.auth import AuthBase, HTTPBasicAuth
from requests.utils import get_netrc_auth
from urllib3.util import Retry

from colbuild.arriving import Bound, BoundError
from colbuild.bounded_requests import ACCEPTED, BoundedAdapter
from colbuild.bounds import PAGE_BYTES, REDIRECTS
from colbuild.fetch.index.pip_settings import PipSettings

PAGE: Final = Bound(PAGE_BYTES, "the limit of a page of an index")
_RETRIED: Final = frozenset({500, 502, 503, 520, 524, 527})
_PAUSE: Final = 0.25


@dataclass(frozen=True)
class Address:
    """A URL without the user name and password in it, which never appear in a message.

    Attributes:
        url: Without them.
        login: They, if it had any.
    """

    url: str
    login: tuple[str, str] | None


def read_address(url: str) -> Address:
    """Splits a URL from the credentials in it."""
    parts = urlsplit(url)
    if "@" not in parts.netloc:
        return Address(url, None)
    login, _, host = parts.netloc.rpartition("@")
    user, _, password = login.partition(":")
    return Address(urlunsplit(parts._replace(netloc=host)), (unquote(user), unquote(password)))


def shown(url: str) -> str:
    """A URL as messages show it: no credentials, no query, no fragment."""
    parts = urlsplit(url)
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


def open_session(settings: PipSettings, addresses: tuple[Address, ...]) -> requests.Session:
    """Opens a session for these indexes; the caller closes it."""
    session = requests.Session()
    session.auth = _Login(addresses)
    session.max_redirects = REDIRECTS
    session.headers["Accept-Encoding"] = ACCEPTED
    if settings.proxy is not None:
        session.proxies = {"http": settings.proxy, "https": settings.proxy}
        session.trust_env = False
    if settings.client_cert is not None:
        session.cert = settings.client_cert
    for prefix, verify in {"https://": settings.cert, "http://": None, **_trusted(settings)}.items():
        session.mount(prefix, _Adapter(settings.retries, verify))
    return session


def _trusted(settings: PipSettings) -> Mapping[str, bool]:
    """Prefixes of URLs whose certificates are not looked at. A host without a port means every port of it."""
    return {
        f"https://{host}{'/' if ':' in host else ending}": False
        for host in settings.trusted_hosts
        for ending in ("/", ":")
    }


class _Adapter(BoundedAdapter):
    """Verifies with its own bundle, whatever the environment says: REQUESTS_CA_BUNDLE would win over pip's `cert`."""

    def __init__(self, retries: int, verify: bool | str | None) -> None:
        self._verify, self._pauses = verify, [_PAUSE * 2**number for number in range(retries)]
        # Not told to retry by status: the library would read all of an answer first, and wait as long as that says.
        super().__init__(Retry(total=retries, backoff_factor=_PAUSE, respect_retry_after_header=False), PAGE)

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
        verify = verify if self._verify is None else self._verify
        for pause in self._pauses:
            answer = super().send(request, stream, timeout, verify, cert, proxies)
            if answer.status_code not in _RETRIED:
                return answer
            answer.close()
            time.sleep(pause)
        return super().send(request, stream, timeout, verify, cert, proxies)


class _Login(AuthBase):
    """Credentials from the indexes' URLs, for everything on their hosts; else from the user's netrc file."""

    def __init__(self, addresses: tuple[Address, ...]) -> None:
        self._addresses = addresses

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        url = request.url or ""
        login = self._of(url) or get_netrc_auth(url)
        return HTTPBasicAuth(*login)(request) if login else request

    def _of(self, url: str) -> tuple[str, str] | None:
        """The login of the index on the same host whose URL has most in common: one host may have several indexes."""
        asked = urlsplit(url)
        near = [
            (len(commonpath([asked.path or "/", urlsplit(address.url).path or "/"])), address.login)
            for address in self._addresses
            if address.login and urlsplit(address.url)[:2] == asked[:2]
        ]
        return max(near)[1] if near else None


def why(error: OSError) -> str:
    """Returns a short reason for a failed request, without a URL."""
    if isinstance(error, BoundError):
        return str(error)
    if isinstance(error, requests.TooManyRedirects):
        return f"it redirects more than {REDIRECTS} times"
    if isinstance(error, requests.HTTPError) and error.response is not None:
        status = error.response.status_code
        if status in (401, 403):
            return f"it refused the credentials (status {status})"
        return f"it answered with status {status}"
    if isinstance(error, requests.exceptions.SSLError):
        return "its certificate is not trusted"
    if isinstance(error, requests.exceptions.ProxyError):
        return "the proxy refused or cannot be reached"
    if isinstance(error, requests.exceptions.ChunkedEncodingError):
        return "the transfer was interrupted"
    if isinstance(error, requests.exceptions.Timeout) or "timed out" in str(error).lower():
        return "it did not answer in time"
    text = str(error).lower()
    for sign, meaning in (
        ("refused", "the connection was refused"),
        ("resol", "its host name is unknown"),
        ("unreachable", "the network is unreachable"),
    ):
        if sign in text:
            return meaning
    return f"the connection failed ({type(error).__name__})"
