"""Reads pip's configuration: indexes, credentials, certificates and proxies.

Read from the same files and variables in pip's own order, not by running `pip config list`: that takes half a second,
and environments made by other tools have no pip to run. What decides is, from weakest to strongest, [global], [install]
and [download] of the files, and PIP_* of the environment; a later file replaces a value of an earlier one whole.
"""

from __future__ import annotations

import configparser
import os
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from colbuild.bounds import PIP_SETTINGS_BYTES
from colbuild.documents import read_regular
from colbuild.errors import SourceUnavailableError

_SECTIONS = ("global", "install", "download")
_ALIASES = {"pypi-url": "index-url", "default-timeout": "timeout"}
_ETC = Path("/etc/pip.conf")
_LARGEST_NUMBER = 1e6
_TRUE = frozenset({"1", "y", "yes", "t", "true", "on"})


@dataclass(frozen=True)
class PipSettings:
    """The settings of pip that say where packages come from.

    Attributes:
        index_url: The main index; None for pip's default.
        extra_index_urls: Further indexes.
        find_links: Folders and pages with archives.
        no_index: Whether only `find_links` counts.
        cert: A bundle of certificates to trust instead of the default ones.
        client_cert: A certificate to show to the server.
        proxy: For all requests; None leaves it to the environment.
        trusted_hosts: "host" or "host:port" whose certificates are not looked at.
        timeout: Seconds to wait for an answer.
        retries: How often a failed connection is tried again.
    """

    index_url: str | None = None
    extra_index_urls: tuple[str, ...] = ()
    find_links: tuple[str, ...] = ()
    no_index: bool = False
    cert: str | None = None
    client_cert: str | None = None
    proxy: str | None = None
    trusted_hosts: tuple[str, ...] = ()
    timeout: float = 15.0
    retries: int = 5


def read_pip_settings(environ: Mapping[str, str]) -> PipSettings:
    """Reads pip's settings as `pip download` would see them.

    Args:
        environ: The environment variables.

    Raises:
        SourceUnavailableError: A configuration file cannot be read, or a number in it is none.
    """
    found = _from_files(environ)
    found |= _from_environment(environ)
    return PipSettings(
        index_url=found.get("index-url"),
        extra_index_urls=tuple(found.get("extra-index-url", "").split()),
        find_links=tuple(found.get("find-links", "").split()),
        no_index=found.get("no-index", "").lower() in _TRUE,
        cert=found.get("cert"),
        client_cert=found.get("client-cert"),
        proxy=found.get("proxy"),
        trusted_hosts=tuple(found.get("trusted-host", "").split()),
        timeout=_number(found, "timeout", 15.0),
        retries=int(_number(found, "retries", 5)),
    )


def _from_files(environ: Mapping[str, str]) -> dict[str, str]:
    by_section: dict[str, dict[str, str]] = {section: {} for section in _SECTIONS}
    for path in _files(environ):
        parser = configparser.RawConfigParser()
        try:
            parser.read_string(read_regular(path, PIP_SETTINGS_BYTES).decode("utf-8"), source=str(path))
        except FileNotFoundError:
            continue
        except (OSError, ValueError, configparser.Error) as error:
            # The parser's message quotes the line, which may hold a password.
            raise SourceUnavailableError(
                f"pip's configuration file {path} cannot be read ({type(error).__name__})",
                hint="'pip config debug' lists the files that pip reads",
            ) from None
        for section in _SECTIONS:
            if parser.has_section(section):
                by_section[section] |= _named(dict(parser.items(section)))
    return {name: value for section in _SECTIONS for name, value in by_section[section].items()}


def _from_environment(environ: Mapping[str, str]) -> dict[str, str]:
    return _named({name.removeprefix("PIP_"): value for name, value in environ.items() if name.startswith("PIP_")})


def _named(items: Mapping[str, str]) -> dict[str, str]:
    """Values by their options' long names. Empty values count as absent, as they do for pip."""
    named = {name.lower().replace("_", "-").removeprefix("--"): value for name, value in items.items() if value.strip()}
    return {_ALIASES.get(name, name): value.strip() for name, value in named.items()}


def _files(environ: Mapping[str, str]) -> Iterator[Path]:
    """The configuration files, weakest first: the machine's, the user's, the environment's, the one that is named."""
    named = environ.get("PIP_CONFIG_FILE")
    if named == os.devnull:
        return
    home = Path(environ.get("HOME") or Path.home())
    on_mac = sys.platform == "darwin"
    if on_mac:
        yield Path("/Library/Application Support/pip/pip.conf")
    else:
        for folder in (environ.get("XDG_CONFIG_DIRS") or "/etc/xdg").split(os.pathsep):
            yield Path(folder, "pip", "pip.conf")
        yield _ETC
    if not (named and Path(named).exists()):
        yield home / ".pip" / "pip.conf"
        library = home / "Library" / "Application Support" / "pip"
        if on_mac and library.is_dir():
            yield library / "pip.conf"
        else:
            yield Path(environ.get("XDG_CONFIG_HOME") or home / ".config", "pip", "pip.conf")
    yield Path(sys.prefix, "pip.conf")
    if named:
        yield Path(named)


def _number(found: Mapping[str, str], name: str, default: float) -> float:
    text = found.get(name)
    if text is None:
        return default
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value < _LARGEST_NUMBER:
        raise SourceUnavailableError(f"pip's setting '{name}' is '{text}', which is not a valid number")
    return value
