"""Recognises common mistakes in sources, and suggests the intended source.

Each kind of mistake is one function in `_KINDS`: it knows the text, or leaves it to the next. Only the text is looked at. The
schemes themselves, with the words that people write for them, are rows of `colbuild.spec.sources.schemes.SCHEMES`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from typing import Final
from urllib.parse import unquote, urlsplit

from colbuild.spec.sources.hub_pages import DATASETS, WITHOUT_OWNER, page_of_hub
from colbuild.spec.sources.schemes import HUB, LOCAL, SCHEMES

Mistake = tuple[str, str]
"""What is wrong, and what to write instead."""

_HOSTS: Final = frozenset({"huggingface.co", "www.huggingface.co", "hf.co", "hf-mirror.com"})
_WINDOWS: Final = re.compile(r"^(?:(?P<drive>[A-Za-z]):[\\/]|\\\\)")
_GIT: Final = re.compile(r"^(?:git@|git\+|ssh://|git://)|\.git/?$")
_ONE_SLASH: Final = re.compile(r"^(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*):/{0,3}(?P<rest>[^/].*)$")
_PART: Final = r"[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?"
_HUB_NAME: Final = re.compile(rf"^(?:(?P<kind>datasets)/)?(?P<name>{_PART}/{_PART})(?P<rest>@[^/\s]+(?:/.+)?|/.+)?$")
_ALONE: Final = re.compile(rf"^{_PART}$")
_FILE: Final = re.compile(
    r"\.(?:gguf|safetensors|bin|pt|json|jsonl|txt|text|md|parquet|pq|csv|tsv|arrow|xml|gz|bz2|xz|zst|zip|tar|yaml|yml|model)$",
    re.IGNORECASE,
)
_FOLDERS: Final = frozenset(
    (
        "models",
        "model",
        "data",
        "inputs",
        "checkpoints",
        "checkpoint",
        "weights",
        "corpus",
        "texts",
        "out",
        "output",
        "tmp",
    )
)
"""Names of folders rather than of owners."""


def source_mistake(text: str, *, dataset: bool = False) -> Mistake | None:
    """Returns the mistake in a text that is not a source, with a suggestion; None for an unknown kind of text.

    Args:
        text: As the user wrote it.
        dataset: Whether it is to name text, rather than a model.
    """
    kinds = _OF_PATHS if text.startswith(LOCAL.begins) else _KINDS
    return next((found for kind in kinds if (found := kind(text, dataset)) is not None), None)


def _windows(text: str, _: bool) -> Mistake | None:
    found = _WINDOWS.match(text)
    if found is None:
        return None
    rest = text[found.end() :].replace("\\", "/")
    where = f"/mnt/{found['drive'].lower()}/{rest}" if found["drive"] else "/mnt/…"
    return (
        f"'{text}' is a Windows path, and colbuild runs where paths begin with '/'",
        f"write the path of that system, under WSL for example '{where}'",
    )


def _backslashes(text: str, _: bool) -> Mistake | None:
    if "\\" not in text:
        return None
    plain = text.replace("\\", "/")
    return "a source has no backslashes", f"write '/' between the parts of a path, as in '{_relative(plain)}'"


def _file_url(text: str, _: bool) -> Mistake | None:
    if not text.lower().startswith("file:"):
        return None
    rest = unquote(text[len("file:") :])
    path = "/" + rest.lstrip("/") if rest.startswith(("///", "/")) and not rest.startswith("//.") else rest.lstrip("/")
    return "'file:' is not needed for a path", f"write '{path if path.startswith('/') else _relative(path)}'"


def _home(text: str, _: bool) -> Mistake | None:
    if not text.startswith("~"):
        return None
    return "'~' is not expanded", f"write the absolute path, here '{os.path.expanduser(text)}'"  # noqa: PTH111 (as text)


def _parent(text: str, _: bool) -> Mistake | None:
    if not (text == ".." or text.startswith("../") or "/../" in text or text.endswith("/..")) or "://" in text:
        return None
    return "'..' is not allowed in a path", "write the absolute path of a file outside the project"


def _hub_page(text: str, dataset: bool) -> Mistake | None:
    shown = text if "://" in text else f"https://{text}"
    address = urlsplit(shown)
    host = (address.hostname or "").lower()
    if address.scheme not in ("http", "https", HUB.name) or host not in _HOSTS | _own_hosts():
        return None
    path = unquote(address.path).strip("/").removesuffix(".git")
    parts = path.split("/")
    kind = parts.pop(0) + "/" if parts[0] in ("datasets", "models", "spaces") else ""
    prefix = DATASETS if kind == DATASETS else ""
    if len(parts) == 1 and parts[0] in WITHOUT_OWNER:
        parts.insert(0, WITHOUT_OWNER[parts[0]])
    if kind == "spaces/" or len(parts) < 2 or not all(_ALONE.match(part.split(":")[0]) for part in parts[:2]):
        return f"'{text}' is not the page of a model or dataset", f"write {_form(dataset)}"
    repo = "/".join((parts[0], parts[1].split(":")[0]))
    rest = page_of_hub("/".join(parts[2:])) or ""
    wanted = "" if ":" not in parts[1] else "/FILE.gguf"
    return f"'{text}' is the address of a page, not a source", f"write '{HUB.beginning}{prefix}{repo}{rest or wanted}'"


def _own_hosts() -> frozenset[str]:
    """The host that the hub's client is told to use."""
    host = urlsplit(os.environ.get("HF_ENDPOINT", "")).hostname
    return frozenset({host.lower()}) if host else frozenset()


def _git(text: str, _: bool) -> Mistake | None:
    if not _GIT.search(text):
        return None
    name = re.sub(r"\.git/?$", "", text).rstrip("/").rsplit("/", 1)[-1].rsplit(":", 1)[-1]
    return (
        f"'{text}' is a git repository, and colbuild does not clone",
        f"clone it (with git lfs), and write './{name}'",
    )


def _web(text: str, _: bool) -> Mistake | None:
    scheme, separator = text.partition("://")[:2]
    if not separator or scheme.lower() not in _WEB:
        return None
    name = urlsplit(text).path.rstrip("/").rsplit("/", 1)[-1] or "the-file"
    return f"'{scheme}://' is not supported", f"download the file and name it by its path, such as './{unquote(name)}'"


_WEB: Final = ("http", "https", "ftp", "s3", "gs", "gcs", "az", "abfs", "r2")


def _nearly_a_scheme(text: str, dataset: bool) -> Mistake | None:
    found = _ONE_SLASH.match(text)
    if found is None:
        return None
    word = found["scheme"].lower()
    row = next((row for row in SCHEMES.values() if row is not LOCAL and word in (row.name, *row.nicknames)), None)
    if row is None:
        return None
    right = row.beginning + found["rest"]
    return None if right == text else (f"'{text}' is not a source", f"did you mean '{right}'?")


def _bare_name(text: str, dataset: bool) -> Mistake | None:
    """A repository's name without its scheme, or a path without './'; often nobody can tell which."""
    if text.startswith((".", "/")) or "://" in text:
        return None
    path, name = _relative(text), text.strip("/")
    hub = _HUB_NAME.match(name) if name.split("/")[0].lower() not in _FOLDERS else None
    message = f"'{text}' is not a source"
    if hub is not None and (hub["kind"] or (hub["rest"] or "").startswith("@")):
        prefix = DATASETS if dataset or hub["kind"] else ""
        return message, f"did you mean '{HUB.beginning}{prefix}{hub['name']}{_rest(hub['rest'])}'?"
    if _ALONE.match(name) and name in WITHOUT_OWNER:
        prefix = DATASETS if dataset else ""
        return message, f"did you mean '{HUB.beginning}{prefix}{WITHOUT_OWNER[name]}/{name}' or the path '{path}'?"
    if hub is not None and (not _FILE.search(name) or hub["rest"]):
        prefix = DATASETS if dataset else ""
        return message, f"did you mean '{HUB.beginning}{prefix}{hub['name']}{_rest(hub['rest'])}' or the path '{path}'?"
    if _ALONE.match(name) and not _FILE.search(name):
        return message, f"a path starts with './' (did you mean '{path}'?), a name on the hub is {_form(dataset)}"
    return message, f"a path starts with './' (did you mean '{path}'?) or with '/'"


def _rest(rest: str | None) -> str:
    """What follows a repository's name, a page's address turned into a revision."""
    return page_of_hub(rest) or rest if rest else ""


def _form(dataset: bool) -> str:
    return HUB.forms[1 if dataset else 0]


def _relative(path: str) -> str:
    return path if path.startswith(("./", "/")) else f"./{path}"


_OF_PATHS: Final = (_backslashes, _parent)
_KINDS: Final[tuple[Callable[[str, bool], Mistake | None], ...]] = (
    _windows,
    _backslashes,
    _file_url,
    _home,
    _parent,
    _hub_page,
    _git,
    _web,
    _nearly_a_scheme,
    _bare_name,
)
