"""Reads JSON from outside, of any size, depth and type, with one kind of error for every fault."""

from __future__ import annotations

import json
import os
import re
import stat
from pathlib import Path
from typing import Any, BinaryIO, Final

from colbuild.bounds import JSON_BYTES, JSON_DEPTH, JSON_NODES
from colbuild.errors import system_reason
from colbuild.units import format_bytes

_ESCAPED_SURROGATE: Final = re.compile(r"\\u[dD][89a-fA-F]")


class MalformedError(ValueError):
    """A file or an answer that is no JSON, too large, or no file at all; the message says which, without its name."""


def parse_json(content: bytes | str) -> Any:
    """Parses JSON of any depth.

    Raises:
        MalformedError: It is no JSON, no UTF-8, nested too deep, or holds a number of thousands of digits or half a surrogate
            pair, which no file could be written with, or more than `JSON_NODES` values.
    """
    try:
        return _parsed(content if isinstance(content, str) else content.decode("utf-8-sig"))
    except RecursionError:
        raise MalformedError("it is nested too deeply") from None
    except UnicodeEncodeError:
        raise MalformedError("it is not JSON: it holds half a surrogate pair") from None
    except MalformedError:
        raise
    except ValueError as error:
        raise MalformedError(f"it is not JSON: {error}") from None


def _parsed(text: str) -> Any:
    if sum(map(text.count, ",[{")) > JSON_NODES:
        raise MalformedError(f"it holds more than {JSON_NODES:,} values, the limit")
    value = json.loads(text)
    if _ESCAPED_SURROGATE.search(text):
        json.dumps(value, ensure_ascii=False).encode("utf-8")
    return value


def shallow(value: Any, most: int = JSON_DEPTH) -> Any:
    """The same value of JSON.

    Raises:
        MalformedError: It is nested deeper than `most`.
    """
    level = [value]
    for _ in range(most + 1):
        level = [
            part
            for node in level
            if isinstance(node, dict | list)
            for part in (node.values() if isinstance(node, dict) else node)
        ]
        if not level:
            return value
    raise MalformedError(f"it is nested deeper than {most}, the limit")


def read_json_file(path: Path, most: int = JSON_BYTES) -> Any:
    """Reads a JSON file.

    Raises:
        MalformedError: As of `parse_json`, and where the file is larger than `most` bytes or no regular file.
        OSError: It cannot be opened.
    """
    return parse_json(read_regular(path, most))


def unreadable(path: Path) -> str | None:
    """Returns the system's error for a path that may not be read; None if it may, or does not exist."""
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return None
    except OSError as error:
        return system_reason(error)
    return None


def read_regular(path: Path, most: int) -> bytes:
    """Reads a regular file whole; a pipe or a device would never end.

    Raises:
        MalformedError: It is larger than `most` bytes, or no regular file.
        OSError: It cannot be opened.
    """
    with open_regular(path) as file:
        size = os.fstat(file.fileno()).st_size
        if size > most:
            raise MalformedError(f"it is larger than {format_bytes(most)}, the limit")
        return file.read(size)


def open_regular(path: Path) -> BinaryIO:
    """Opens a regular file to read bytes from it.

    Raises:
        MalformedError: It is no regular file.
        OSError: It cannot be opened.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    mode = os.fstat(descriptor).st_mode
    if stat.S_ISREG(mode):
        return os.fdopen(descriptor, "rb")
    os.close(descriptor)
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(21, "Is a directory", str(path))
    raise MalformedError("it is not a regular file")
