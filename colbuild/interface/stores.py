"""Finds the store and the remote cache for calls without a family."""

from __future__ import annotations

import os
from pathlib import Path

from colbuild.errors import BuildError
from colbuild.plan.changes.former import former_records
from colbuild.plan.family_plan import STORE_VARIABLE, remote_url
from colbuild.store import Store, open_store

_STORE = ".colbuild"


def find_store(option: Path | None) -> Store:
    """The store that is meant where no family is named.

    That is what was asked for, else `COLBUILD_STORE`, else `.colbuild` in this folder or the next above that has one.

    Raises:
        BuildError: The path holds something else.
    """
    configured = os.environ.get(STORE_VARIABLE)
    if option is not None or configured:
        return open_store(option or Path(configured or ""), former_records)
    here = Path.cwd()
    for folder in (here, *here.parents):
        try:
            found = (folder / _STORE / "format").is_file()
        except OSError:
            # One that may not be read is not passed over: the next one above may be somebody else's.
            found = True
        if found:
            return open_store(folder / _STORE, former_records)
    return open_store(here / _STORE, former_records)


def required_remote(option: str | None) -> str:
    """The remote that a command is about.

    Raises:
        BuildError: Neither the option nor `COLBUILD_REMOTE` names one.
    """
    url = remote_url(option)
    if url is None:
        raise BuildError(
            "no remote is named",
            hint="give --remote URL or set COLBUILD_REMOTE, such as s3://bucket/path or file:///mnt/share/colbuild",
        )
    return url
