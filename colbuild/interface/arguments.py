"""Checks arguments of the Python interface against the models of the spec."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, TypeVar

from pydantic import BaseModel

from colbuild.errors import BuildError, ColbuildError, system_reason
from colbuild.events import Listener
from colbuild.plan.family_plan import silent
from colbuild.spec.text.check import check
from colbuild.spec.text.yaml_text import read_yaml
from colbuild.units import UnitError, parse_count

StrPath = str | os.PathLike[str]
"""A path, as a string or as an object; checkpoints, packages and models of a family are such objects too."""

Shown = bool | Listener
"""Whether to show progress as the command line does; or a function that is given each event of `colbuild.events`."""

M = TypeVar("M", bound=BaseModel)
_ADVICE: Final = {
    "name a file with -o": "name a file in a folder that is there",
    "use a bridge": "choose two models of one architecture and vocabulary",
    "check the data section": "give text that holds more than blanks",
    "choose files:": "name one file, or a folder with files of one format",
    "choose some with 'files'": "name one file, or a folder with files of one format",
}
"""Beginning of a hint about a spec or the command line -> what to do from Python."""
_HINT: Final = "help() of the function says what each argument may be"


def as_path(given: StrPath, what: str) -> Path:
    """A path that the caller gave.

    Raises:
        BuildError: It is no path.
    """
    try:
        path = os.fspath(given)
    except TypeError:
        path = None
    if not isinstance(path, str) or not path or "\0" in path:
        raise BuildError(f"{what} is not a path: {_told(given)}", hint="give a string or a pathlib.Path")
    try:
        return Path(path).expanduser()
    except RuntimeError:
        raise BuildError(
            f"{what} is in the home folder of an unknown user: {_told(path)}", hint="write the whole path"
        ) from None


@contextmanager
def looked_at(what: str) -> Iterator[None]:
    """Tells what the system says of a path that cannot be looked at, such as one that is too long.

    Raises:
        BuildError: It refuses the path.
    """
    try:
        yield
    except OSError as error:
        raise BuildError(f"{what} cannot be used: {system_reason(error)}", hint="give another path") from None


def existing(given: StrPath, what: str) -> Path:
    """A path that the caller gave, to something that is there.

    Raises:
        BuildError: It is no path, or nothing is there.
    """
    path = as_path(given, what)
    with looked_at(what):
        found = path.exists()
        beside = sorted(one.name for one in path.parent.iterdir())[:5] if not found and path.parent.is_dir() else []
    if not found:
        there = f"{path.parent} holds {', '.join(beside)}" if beside else f"the working directory is {Path.cwd()}"
        raise BuildError(f"{what} does not exist: {path}", hint=there)
    return path


def checked(model: type[M], values: Mapping[str, Any]) -> M:
    """Arguments as a model of the spec; those that are None are left out.

    Raises:
        BuildError: With every mistake in them.
    """
    given = {key: value for key, value in values.items() if value is not None}
    try:
        text = json.dumps(given)
    except (TypeError, ValueError):
        odd = next(f"{key}={_told(value)}" for key, value in given.items() if not _is_plain(value))
        raise BuildError(f"{odd} is not a valid value of this argument", hint=_HINT) from None
    root = read_yaml(text.encode(), "arguments").root
    assert root is not None
    found, problems = check(model, root)
    if found is None:
        hints = dict.fromkeys(problem.hint for problem in problems if problem.hint)
        raise BuildError(
            "; ".join(problem.message.removesuffix(" in the file") for problem in problems),
            hint="; ".join(hints) or _HINT,
        )
    return found


def words(given: Iterable[str], what: str) -> tuple[str, ...]:
    """Names that the caller gave.

    Raises:
        BuildError: One of them is no text.
    """
    found = tuple(given)
    for name in found:
        if not isinstance(name, str):
            raise BuildError(f"{what} is not a text: {_told(name)}", hint="give a string")
    return found


def whole(value: int | str, name: str, *, least: int = 1) -> int:
    """A count that the caller gave: 4096, or 20k.

    Raises:
        BuildError: It is none, or less than `least`.
    """
    try:
        found = 0 if value == 0 and not isinstance(value, bool) else parse_count(value)
    except UnitError as error:
        raise BuildError(f"{name}: {error}", hint="give a whole number, such as 4096") from None
    if found < least:
        raise BuildError(f"{name} is {found}", hint=f"give a number from {least} on")
    return found


def switches(**given: object) -> None:
    """Checks truth values that the caller gave.

    Raises:
        BuildError: One of them is none.
    """
    for name, value in given.items():
        if not isinstance(value, bool):
            raise BuildError(f"{name} is {_told(value)}", hint="give True or False")


def python_hint(hint: str | None) -> str | None:
    """A hint of a spec or of the command line, as advice about arguments."""
    if hint is None:
        return None
    told = next((told for begin, told in _ADVICE.items() if hint.startswith(begin)), hint)
    return told.replace("--store", "load(store=…)")


@contextmanager
def python_hints() -> Iterator[None]:
    """Gives errors of the block the hints that a caller from Python can follow; a decorator of functions too."""
    try:
        yield
    except ColbuildError as error:
        error.hint = python_hint(error.hint)
        raise


@contextmanager
def listening(progress: Shown) -> Iterator[Listener]:
    """The listener that `progress` stands for.

    Raises:
        BuildError: It is neither a truth value nor a function.
    """
    if callable(progress):
        yield progress
    elif not isinstance(progress, bool):
        raise BuildError(f"progress is {_told(progress)}", hint="give True, False, or a function that takes an event")
    elif not progress:
        yield silent
    else:
        from colbuild.report.screen.live import event_listener
        from colbuild.report.screen.screen import open_console

        with event_listener(open_console(stderr=True)) as listener:
            yield listener


def _told(value: object) -> str:
    return repr(value)[:60]


def _is_plain(value: object) -> bool:
    try:
        json.dumps(value)
    except (TypeError, ValueError):
        return False
    return True
