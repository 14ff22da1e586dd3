"""Reads an untrusted git repository: runs, fetches and writes nothing that its configuration names."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from colbuild.bounds import GIT_SECONDS
from colbuild.errors import ColbuildError

_ENVIRONMENT: Final[Mapping[str, str]] = {
    "LC_ALL": "C",
    "GIT_OPTIONAL_LOCKS": "0",  # the index is not written, so that no hook runs
    "GIT_NO_LAZY_FETCH": "1",  # what a partial clone lacks is missing
    "GIT_ALLOW_PROTOCOL": "none",  # the same for a git that does not know the line above
    "GIT_NO_REPLACE_OBJECTS": "1",
    "GIT_GRAFT_FILE": os.devnull,
    "GIT_TERMINAL_PROMPT": "0",
    "GIT_PAGER": "cat",
}
_SETTINGS: Final = ("core.fsmonitor=false", f"core.hooksPath={os.devnull}", "protocol.allow=never", "core.pager=cat")
_FILTER: Final[Mapping[str, str]] = {"clean": "", "smudge": "", "process": "", "required": "false"}
"""What a filter becomes. A file that only its filter would show to be unchanged counts as changed."""


class GitError(ColbuildError):
    """A revision cannot be read: no git, no repository, no such revision, or an object of it is missing."""


def git(root: Path, *arguments: str, given: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    """Runs git in a folder and returns what came of it, whatever that is; its messages are in English.

    Raises:
        GitError: There is no git, or it does not come to an end.
    """
    return _run(root, arguments, given, _without_filters(root))


def complaint(done: subprocess.CompletedProcess[bytes]) -> str:
    """The first line of what git says of a failure; its hints and warnings come before it and do not tell why."""
    lines = done.stderr.decode("utf-8", "replace").strip().splitlines()
    told = [line for line in lines if not line.startswith(("hint:", "warning:"))] or lines
    return told[0].removeprefix("fatal: ").removeprefix("error: ") if told else ""


def _without_filters(root: Path) -> dict[str, str]:
    """Settings, in the environment, that make every filter that is configured do nothing."""
    listed = _run(root, ("config", "--null", "--name-only", "--get-regexp", r"^filter\."), b"", {}).stdout
    names = {os.fsdecode(key).split(".", 1)[1].rpartition(".")[0] for key in listed.split(b"\0") if key.count(b".") > 1}
    first = os.environ.get("GIT_CONFIG_COUNT", "")
    count = int(first) if first.isdecimal() else 0
    settings = {}
    for name in sorted(names):
        for key, value in _FILTER.items():
            settings[f"GIT_CONFIG_KEY_{count}"] = f"filter.{name}.{key}"
            settings[f"GIT_CONFIG_VALUE_{count}"] = value
            count += 1
    return {**settings, "GIT_CONFIG_COUNT": str(count)} if settings else {}


def _run(
    root: Path, arguments: tuple[str, ...], given: bytes, settings: Mapping[str, str]
) -> subprocess.CompletedProcess[bytes]:
    options = [word for setting in _SETTINGS for word in ("-c", setting)]
    command = ["git", *options, "-C", str(root), *arguments]
    environment = {**os.environ, **_ENVIRONMENT, **settings}
    try:
        return subprocess.run(  # noqa: S603
            command, input=given, capture_output=True, env=environment, check=False, timeout=GIT_SECONDS
        )
    except FileNotFoundError:
        raise GitError("git is not installed, so no revision can be read") from None
    except subprocess.TimeoutExpired:
        raise GitError(f"git takes longer than {GIT_SECONDS:.0f} s to read {root}, the limit") from None
