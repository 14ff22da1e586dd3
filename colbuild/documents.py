"""JSON from outside: files and answers of any size, depth and type, with one kind of error for all that is wrong with them."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path
from typing import Any

from colbuild.bounds import JSON_BYTES
from colbuild.units import format_bytes


class MalformedError(ValueError):
    """A file or an answer that is no JSON, too large, or no file at all; the message says which, without its name."""


def parse_json(content: bytes | str) -> Any:
    """Parses JSON of any depth.

    Raises:
        MalformedError: It is no JSON, no UTF-8, nested too deep, or holds a number of thousands of digits.
    """
    try:
        return json.loads(content)
    except RecursionError:
        raise MalformedError("it is nested too deep") from None
    except ValueError as error:
        raise MalformedError(f"it is not JSON: {error}") from None


def read_json_file(path: Path, most: int = JSON_BYTES) -> Any:
    """Reads a JSON file.

    Raises:
        MalformedError: As of `parse_json`, and where the file is larger than `most` bytes or no regular file.
        OSError: It cannot be opened.
    """
    return parse_json(read_regular(path, most))


def read_regular(path: Path, most: int) -> bytes:
    """Reads a regular file whole; a pipe or a device would never end.

    Raises:
        MalformedError: It is larger than `most` bytes, or no regular file.
        OSError: It cannot be opened.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(descriptor, "rb", buffering=0) as file:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            if stat.S_ISDIR(status.st_mode):
                raise IsADirectoryError(21, "Is a directory", str(path))
            raise MalformedError("it is no regular file")
        if status.st_size > most:
            raise MalformedError(f"it is larger than {format_bytes(most)}, the most that it may have")
        return file.read(status.st_size)
