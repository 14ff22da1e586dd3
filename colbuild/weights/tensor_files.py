"""Where tensors lie in safetensors files, so that parts of them can be read without mapping or loading a file.

A file is 8 bytes that give the length of a JSON header, the header, and the tensors one after the other, row by row. A model
is one such file or several with an index (https://huggingface.co/docs/safetensors, "Format").
"""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import torch

from colbuild.errors import BuildError

WEIGHTS: Final = "model.safetensors"
INDEX: Final = f"{WEIGHTS}.index.json"
PICKLED: Final = ("*.bin", "*.pt", "*.pth", "*.ckpt")
DTYPES: Final[Mapping[str, torch.dtype]] = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
"""Types that weights may have, as files call them."""

_HEADER_LIMIT: Final = 100_000_000
_AGAIN: Final = "It may be cut off: fetch or build it again."


@dataclass(frozen=True)
class Stored:
    """One tensor of a file.

    Attributes:
        name: What the file calls it.
        path: The file.
        offset: Where in it the tensor begins, in bytes.
        dtype: Type of its entries.
        lengths: Its shape.
    """

    name: str
    path: Path
    offset: int
    dtype: torch.dtype
    lengths: tuple[int, ...]

    @property
    def bytes(self) -> int:
        """How many bytes it takes."""
        return prod(self.lengths) * self.dtype.itemsize

    @property
    def width(self) -> int:
        """Entries in a row."""
        return prod(self.lengths[1:])


def stored_tensors(folder: Path) -> dict[str, Stored]:
    """Every tensor of a model folder, by its name in the files.

    Raises:
        BuildError: There are no safetensors; a file is damaged, cut off or missing; a tensor is there twice or is of a type
            that weights cannot have.
    """
    found: dict[str, Stored] = {}
    for path in weight_files(folder):
        for name, tensor in _of_file(path).items():
            if name in found:
                raise BuildError(f"{folder} stores {name} twice; it cannot be told which one is meant")
            found[name] = tensor
    return found


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files of a model folder: one, or those that its index names.

    Raises:
        BuildError: There are none, the index is damaged, or names files that are missing or lie elsewhere.
    """
    index = folder / INDEX
    if (folder / WEIGHTS).is_file():
        return [folder / WEIGHTS]
    if not index.is_file():
        raise _no_safetensors(folder)
    try:
        names = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
    except (ValueError, KeyError, TypeError, AttributeError, OSError) as error:
        raise BuildError(f"{index} is not an index of safetensors files ({error})") from None
    for name in names:
        if not isinstance(name, str) or "/" in name or "\\" in name or not name.endswith(".safetensors"):
            raise BuildError(f"{index} names {name!r}, which is no safetensors file beside it")
        if not (folder / name).is_file():
            raise BuildError(f"{folder} lacks {name}, which its index names", hint="Fetch the model again.")
    return [folder / name for name in names]


def _no_safetensors(folder: Path) -> BuildError:
    pickles = sorted(path.name for pattern in PICKLED for path in folder.glob(pattern))
    if pickles:
        return BuildError(
            f"{folder} holds pickled weights only ({pickles[0]}), which run code when they are loaded",
            hint="Convert it to safetensors.",
        )
    return BuildError(f"{folder} holds no weights: neither {WEIGHTS} nor {INDEX}")


def _of_file(path: Path) -> dict[str, Stored]:
    try:
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            length = int.from_bytes(file.read(8), "little")
            if not 2 <= length <= min(size - 8, _HEADER_LIMIT):
                raise BuildError(f"{path} is no safetensors file, or is cut off within its header", hint=_AGAIN)
            header = json.loads(file.read(length))
    except OSError as error:
        raise BuildError(f"{path} cannot be read: {error}") from None
    except ValueError as error:
        raise BuildError(f"{path} has a damaged header: {error}", hint=_AGAIN) from None
    if not isinstance(header, dict):
        raise BuildError(f"{path} has a damaged header: it is no JSON object", hint=_AGAIN)
    header.pop("__metadata__", None)
    return {name: _tensor(path, name, entry, 8 + length, size) for name, entry in header.items()}


def _tensor(path: Path, name: str, entry: Any, start: int, size: int) -> Stored:
    try:
        kind, lengths, (begin, end) = entry["dtype"], tuple(map(int, entry["shape"])), entry["data_offsets"]
    except (KeyError, TypeError, ValueError) as error:
        raise BuildError(f"{path} has a damaged header: {name}: {error}", hint=_AGAIN) from None
    if kind not in DTYPES:
        raise BuildError(
            f"{name} in {path} is of type {kind}; {', '.join(DTYPES)} can be used",
            hint="Use the model's original weights rather than quantised ones.",
        )
    stored = Stored(name, path, start + int(begin), DTYPES[kind], lengths)
    if end - begin != stored.bytes or begin < 0 or min(lengths, default=0) < 0:
        raise BuildError(f"{path} has a damaged header: {name} does not take {end - begin:,} bytes", hint=_AGAIN)
    if stored.offset + stored.bytes > size:
        raise BuildError(
            f"{path} is cut off: {name} ends {stored.offset + stored.bytes - size:,} bytes past its end", hint=_AGAIN
        )
    return stored


class TensorReader:
    """Reads rows of tensors into buffers that are used again; a context manager. Each thread has buffers of its own."""

    def __init__(self) -> None:
        self._own = threading.local()
        self._files: dict[Path, int] = {}
        self._lock = threading.Lock()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for file in self._files.values():
            os.close(file)
        self._files.clear()

    def rows(self, tensor: Stored, start: int, stop: int, buffer: str) -> torch.Tensor:
        """Rows of a tensor as a matrix [stop - start, columns].

        Args:
            tensor: Where it lies.
            start: The first row.
            stop: The row after the last.
            buffer: What is read holds until the same thread reads into the same buffer again.

        Raises:
            BuildError: The file ends before, or cannot be read.
        """
        row = tensor.width * tensor.dtype.itemsize
        memory = self._buffer(buffer, (stop - start) * row)
        self._fill(tensor, memory, tensor.offset + start * row)
        return (
            torch.frombuffer(memory, dtype=tensor.dtype).view(stop - start, tensor.width) if memory else _none(tensor)
        )

    def _buffer(self, name: str, size: int) -> memoryview:
        buffers: dict[str, bytearray] = self._own.__dict__.setdefault("buffers", {})
        if len(buffers.get(name, b"")) < size:
            buffers[name] = bytearray(size)
        return memoryview(buffers[name])[:size]

    def _fill(self, tensor: Stored, memory: memoryview, offset: int) -> None:
        try:
            file = self._file(tensor.path)
            while memory:
                done = os.preadv(file, [memory], offset)
                if not done:
                    raise BuildError(f"{tensor.path} ends early", hint=_AGAIN)
                memory, offset = memory[done:], offset + done
        except OSError as error:
            raise BuildError(f"{tensor.path} cannot be read: {error}") from None

    def _file(self, path: Path) -> int:
        with self._lock:
            if path not in self._files:
                file = os.open(path, os.O_RDONLY)
                self._files[path] = file
                if hasattr(os, "posix_fadvise"):
                    os.posix_fadvise(file, 0, 0, os.POSIX_FADV_SEQUENTIAL)
            return self._files[path]


def _none(tensor: Stored) -> torch.Tensor:
    return torch.empty(0, tensor.width, dtype=tensor.dtype)
