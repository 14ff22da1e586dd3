"""Chooses the files of a source that are a corpus, and their format.

::

    a folder ─> the chosen files ('files'), no hidden ones ─> without what only describes data ─> one format ─> no two splits

The corpus step does this, and so does a plan, which reads the first record of a text on this machine.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Final

from colbuild.documents import MalformedError, read_json_file
from colbuild.errors import SourceError
from colbuild.fetch.texts.sniff import sniff
from colbuild.fetch.texts.splits import check_splits
from colbuild.spec.sources.choice import chosen, unmatched
from colbuild.spec.sources.formats import AUTO, FORMATS, TEXT, format_of_name, suffix_of

_DESCRIPTIONS: Final = frozenset(
    ("dataset_infos.json", "dataset_info.json", "dataset_dict.json", "state.json", "croissant.json", "requirements.txt")
)
_ABOUT: Final = frozenset(
    (
        "authors",
        "changelog",
        "citation",
        "code_of_conduct",
        "contributing",
        "copying",
        "licence",
        "license",
        "notice",
        "readme",
    )
)
"""Names, whatever the suffix, of files that say something about the data beside them."""

_MARKDOWN: Final = ".md"
_SHOWN: Final = 2


@dataclass(frozen=True)
class Chosen:
    """The files of a corpus.

    Attributes:
        format: Of all of them.
        files: In the order of their paths.
    """

    format: str
    files: tuple[Path, ...]


def choose(raw: Path, form: str, globs: Sequence[str] = ()) -> Chosen:
    """Finds the files of a corpus and their format.

    Args:
        raw: A file, or a folder.
        form: A format, or "auto".
        globs: Which files of a folder are meant, as in the spec; all if empty.

    Raises:
        SourceError: There are no such files, they are of several formats, or some are to train on and others to measure on.
    """
    if raw.is_file():
        return Chosen(sniff(raw) or TEXT if form == AUTO else form, (raw,))
    every = sorted(_names(raw))
    if not every:
        raise SourceError(f"the corpus {raw} holds no files", hint="check 'source' of the data")
    if {"blobs", "refs", "snapshots"} <= {name.split("/")[0] for name in every}:
        hint = "name one of its snapshots in 'source': the folder snapshots/<commit>"
        raise SourceError(f"{raw} is a cache of the hub's client, which may hold several versions", hint=hint)
    names = chosen(every, globs)
    if not names:
        message, hint = unmatched(globs, every)
        raise SourceError(f"{raw}: {message}", hint=hint, key="files")
    names = _saved(raw, names)
    format_, names = _of_one_format(raw, names) if form == AUTO else (form, _called_so(names, form))
    if not globs:
        check_splits(raw, names, _split_folders(raw, every))
    return Chosen(format_, tuple(raw / name for name in names))


def _names(raw: Path) -> Iterable[str]:
    """The files of a folder that are not hidden, by their relative paths."""
    for path in raw.rglob("*"):
        name = path.relative_to(raw)
        if not any(part.startswith(".") for part in name.parts) and path.is_file():
            yield name.as_posix()


def _called_so(names: list[str], form: str) -> list[str]:
    """The files that are called as files of a format are; all of them if none is."""
    suffixes = FORMATS[form].suffixes
    # Whoever says that a folder is text may mean its README as well.
    data = names if form == TEXT else _without_descriptions(names)
    return [name for name in data if suffix_of(name) in suffixes] or data


def _of_one_format(raw: Path, names: Sequence[str]) -> tuple[str, list[str]]:
    data = _without_descriptions(names)
    found = _by(data, format_of_name)
    if len(found) > 1 and TEXT in found:
        # Beside data, Markdown describes it.
        text = [name for name in found.pop(TEXT) if suffix_of(name) != _MARKDOWN]
        found |= {TEXT: text} if text else {}
    if not found:
        # Names that say nothing, as `part-00000` and `wiki_00`.
        found = _by(data, lambda name: sniff(raw / name))
    if len(found) > 1:
        raise _several(raw, found)
    return next(iter(found.items()), (TEXT, data))


def _by(names: Iterable[str], format_of: Any) -> dict[str, list[str]]:
    """Format -> the names of this format; files whose format is not told are left out."""
    found: dict[str, list[str]] = defaultdict(list)
    for name in names:
        form = format_of(name)
        if form is not None:
            found[form].append(name)
    return dict(found)


def _without_descriptions(names: Sequence[str]) -> list[str]:
    """The files without those that describe others; all of them if nothing else is there."""
    return [name for name in names if not _describes(PurePosixPath(name.lower()).name)] or list(names)


def _describes(name: str) -> bool:
    return name in _DESCRIPTIONS or name.split(".")[0] in _ABOUT


def _several(raw: Path, found: Mapping[str, Sequence[str]]) -> SourceError:
    kinds = [f"{len(names)} of format {form} ({_some(names)})" for form, names in sorted(found.items())]
    most = max(found, key=lambda form: len(found[form]))
    suffix = suffix_of(found[most][0])
    way = f"choose files: 'files: \"*{suffix}*\"'" if suffix else "choose some with 'files'"
    return SourceError(
        f"{raw} holds files of several formats: {' and '.join(kinds)}",
        hint=f"{way}, or name the format: 'format: {most}'",
        key="format",
    )


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:_SHOWN]) + (", …" if len(names) > _SHOWN else "")


# -- folders that `datasets` wrote ------------------------------------------------------------------------------------


def _saved(raw: Path, names: Sequence[str]) -> list[str]:
    """The files without Arrow files that a dataset's `state.json` does not name: those are leftovers of computations.

    Raises:
        SourceError: A dataset is saved as a choice of rows of its files.
    """
    kept = []
    states: dict[Path, frozenset[str] | None] = {}
    for name in names:
        path = raw / name
        if suffix_of(name) == ".arrow":
            if path.parent not in states:
                states[path.parent] = _data_files(path.parent)
            named = states[path.parent]
            if named is not None and path.name not in named:
                continue
        kept.append(name)
    return kept


def _data_files(folder: Path) -> frozenset[str] | None:
    """The files of a saved dataset; None if the folder is none."""
    state = _json(folder / "state.json")
    files = state.get("_data_files")
    if not isinstance(files, list):
        return None
    if state.get("_indices_files") or state.get("_indices_data_files"):
        hint = "save it again: dataset.flatten_indices().save_to_disk(…)"
        raise SourceError(f"{folder} is a dataset saved with indices that select its rows", hint=hint)
    return frozenset(
        file["filename"] for file in files if isinstance(file, dict) and isinstance(file.get("filename"), str)
    )


def _split_folders(raw: Path, names: Sequence[str]) -> dict[str, str]:
    """Folder -> the split that it holds, as `dataset_dict.json` says."""
    found = {}
    for name in names:
        if PurePosixPath(name).name == "dataset_dict.json":
            splits = _json(raw / name).get("splits")
            for split in splits if isinstance(splits, list) else ():
                found[(PurePosixPath(name).parent / str(split)).as_posix()] = str(split)
    return found


def _json(path: Path) -> Mapping[str, Any]:
    try:
        value = read_json_file(path)
    except (OSError, MalformedError):
        return {}
    return value if isinstance(value, dict) else {}
