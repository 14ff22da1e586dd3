"""Headers of safetensors files, read without torch and without tensors, so that a plan can read them.

A file is 8 bytes that give the length of a JSON header, the header, and the tensors one after the other, row by row. A model
is one such file or several with an index (https://huggingface.co/docs/safetensors, "Format").
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any, Final

from colbuild.arch import Structure, tensors
from colbuild.arch.files.json_file import read_object, refuse_pointer
from colbuild.arch.value_kinds import is_whole
from colbuild.bounds import DIMENSIONS, WEIGHTS_HEADER
from colbuild.documents import MalformedError, open_regular, parse_json
from colbuild.errors import BuildError
from colbuild.units import format_bytes

WEIGHTS: Final = "model.safetensors"
INDEX: Final = f"{WEIGHTS}.index.json"
PICKLED: Final = ("*.bin", "*.pt", "*.pth", "*.ckpt")
SIZES: Final[Mapping[str, int]] = {"F32": 4, "F16": 2, "BF16": 2}
"""Bytes of a number, of the types that weights may have, as files call them."""

AGAIN: Final = "fetch or build the file again, in case it is truncated"
_CHUNK: Final = 1 << 22


@dataclass(frozen=True)
class Entry:
    """One tensor of a file.

    Attributes:
        name: What the file calls it.
        path: The file.
        offset: Where in it the tensor begins, in bytes.
        size: How many bytes it takes.
        kind: Type of its numbers, as the file calls it.
        lengths: Its shape.
    """

    name: str
    path: Path
    offset: int
    size: int
    kind: str
    lengths: tuple[int, ...]


def entries(folder: Path) -> Iterator[Entry]:
    """Every tensor of a model folder, of any type, file by file.

    Raises:
        BuildError: There are no safetensors, or a file is damaged, cut off or missing.
    """
    for path in weight_files(folder):
        yield from file_entries(path)


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
    named = read_object(index).get("weight_map")
    if not isinstance(named, dict) or not named:
        raise BuildError(f"{index} is not an index of safetensors files: it has no 'weight_map'")
    for name in named.values():
        if not isinstance(name, str) or set("/\\\0") & set(name) or not name.endswith(".safetensors"):
            raise BuildError(f"{index} names {name!r}, which is not a safetensors file beside it")
    names = sorted(set(named.values()))
    for name in names:
        if not (folder / name).is_file():
            raise BuildError(f"{folder} lacks {name}, which its index names", hint="fetch the model again")
    return [folder / name for name in names]


def _no_safetensors(folder: Path) -> BuildError:
    nowhere = f"{folder} holds no weights: neither {WEIGHTS} nor {INDEX}"
    others = sorted(path.name for path in folder.glob("*.safetensors"))
    if any("-of-" in name for name in others):
        return BuildError(
            f"{folder} holds parts of a model ({others[0]}) without {INDEX}, which lists the tensors of each part",
            hint=f"fetch {INDEX} from where the parts are from",
        )
    pickles = sorted(path.name for pattern in PICKLED for path in folder.glob(pattern))
    if pickles:
        return BuildError(
            f"{folder} holds pickled weights only ({pickles[0]}), which run code when they are loaded",
            hint="convert it to safetensors: load it with transformers where you trust it, and call save_pretrained",
        )
    if others:
        return BuildError(nowhere, hint=f"{others[0]} is there; if it holds the whole model, call it {WEIGHTS}")
    return BuildError(nowhere)


def file_entries(path: Path) -> list[Entry]:
    """The tensors of one safetensors file.

    Raises:
        BuildError: It is a Git LFS pointer, no such file, damaged or cut off.
    """
    refuse_pointer(path)
    try:
        with open_regular(path) as file:
            size = os.fstat(file.fileno()).st_size
            length = int.from_bytes(file.read(8), "little")
            if not 2 <= length <= size - 8:
                raise BuildError(f"{path} is not a safetensors file, or is truncated within its header", hint=AGAIN)
            if length > WEIGHTS_HEADER:
                most = format_bytes(WEIGHTS_HEADER)
                raise BuildError(f"{path} has a header of more than {most}, the limit", hint=AGAIN)
            header = parse_json(file.read(length))
    except OSError as error:
        raise BuildError(f"{path} cannot be read: {error}") from None
    except MalformedError as error:
        raise BuildError(f"{path} has a damaged header: {error}", hint=AGAIN) from None
    if not isinstance(header, dict):
        raise BuildError(f"{path} has a damaged header: it is not a JSON object", hint=AGAIN)
    header.pop("__metadata__", None)
    return [_entry(path, name, entry, 8 + length, size) for name, entry in header.items()]


def _entry(path: Path, name: str, entry: Any, start: int, size: int) -> Entry:
    try:
        kind, lengths, (begin, end) = str(entry["dtype"]), tuple(entry["shape"]), entry["data_offsets"]
    except (KeyError, TypeError, ValueError) as error:
        raise BuildError(f"{path} has a damaged header: {name}: {error}", hint=AGAIN) from None
    if len(lengths) > DIMENSIONS or not all(map(is_whole, (begin, end, *lengths))):
        raise BuildError(
            f"{path} has a damaged header: {name} needs whole numbers in 'shape' (at most {DIMENSIONS}) and 'data_offsets'",
            hint=AGAIN,
        )
    found = Entry(name, path, start + begin, end - begin, kind, lengths)
    expected = prod(lengths) * SIZES[kind] if kind in SIZES else found.size
    if found.size != expected or begin < 0 or found.size < 0 or min(lengths, default=0) < 0:
        raise BuildError(f"{path} has a damaged header: {name} does not take {found.size:,} bytes", hint=AGAIN)
    if found.offset + found.size > size:
        past = found.offset + found.size - size
        raise BuildError(f"{path} is truncated: {name} ends {past:,} bytes past its end", hint=AGAIN)
    return found


def check_kind_of(entry: Entry) -> None:
    """Raises BuildError if a tensor is of a type that weights cannot have."""
    if entry.kind not in SIZES:
        raise BuildError(
            f"{entry.name} in {entry.path} has the type {entry.kind}; supported types: {', '.join(SIZES)}",
            hint="use the model's original weights, not quantised ones",
        )


def same_content(one: Entry, other: Entry) -> bool:
    """Returns whether two tensors are the same, byte by byte; two that differ mostly do so at their beginning.

    Raises:
        BuildError: A file cannot be read.
    """
    if (one.kind, one.lengths) != (other.kind, other.lengths):
        return False
    try:
        with one.path.open("rb") as first, other.path.open("rb") as second:
            first.seek(one.offset)
            second.seek(other.offset)
            left = one.size
            while left:
                most = min(left, _CHUNK)
                if first.read(most) != second.read(most):
                    return False
                left -= most
    except OSError as error:
        raise BuildError(f"{one.path} cannot be read: {error}") from None
    return True


def check_lengths(structure: Structure, found: Mapping[str, tuple[int, ...]]) -> None:
    """Compares the shapes of weights, by their names, with the table of their architecture.

    Raises:
        BuildError: Tensors are missing, unknown, or of another shape.
    """
    expected = {tensor.name: tensor.lengths for tensor in tensors(structure)}
    missing = [name for name in expected if name not in found]
    unknown = sorted(found.keys() - expected.keys())
    wrong = sorted(name for name in expected.keys() & found.keys() if found[name] != expected[name])
    parts = [
        f"{what}: {', '.join(names[:4])}{' …' if len(names) > 4 else ''}"
        for what, names in (("missing", sorted(missing)), ("not in the architecture", unknown))
        if names
    ]
    if wrong:
        told = [f"{name} is {list(found[name])}, not {list(expected[name])}" for name in wrong[:4]]
        parts.append(f"of another shape: {', '.join(told)}{' …' if len(wrong) > 4 else ''}")
    if parts:
        raise BuildError(f"the weights do not match the model's configuration; {'; '.join(parts)}")
