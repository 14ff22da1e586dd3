"""`hf://org/name@revision[/file]`: a repository of the Hugging Face Hub, or one file of it, at one commit."""

from __future__ import annotations

import os
import re
import shutil
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from fnmatch import fnmatchcase
from functools import partial
from pathlib import Path

from huggingface_hub import errors, hf_hub_download
from huggingface_hub.utils.tqdm import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars

from colbuild.arch.files.gguf_split import split_names
from colbuild.arch.files.model_config import PICKLES
from colbuild.arch.files.model_files import LICENCES, TOKENIZER
from colbuild.arriving import Bound
from colbuild.bounds import UNDECLARED_BYTES
from colbuild.documents import MalformedError
from colbuild.errors import SourceUnavailableError
from colbuild.fetch.hub.hub_cache import copy_snapshot, download_command, find_snapshot
from colbuild.fetch.hub.hub_client import FAILURES, file_bound, list_files
from colbuild.fetch.index.index_session import shown
from colbuild.progress import Progress, Report
from colbuild.spec.sources.choice import chosen, unmatched
from colbuild.spec.sources.formats import COMPRESSED, FORMATS
from colbuild.spec.sources.hub_pages import DATASETS
from colbuild.spec.sources.schemes import HUB
from colbuild.spec.sources.source_kinds import HubSource
from colbuild.store.locks import remove

_WEIGHTS = ("model.safetensors", "model-*.safetensors")
# README.md says what the licence is called.
_LEGAL = ("README.md", *LICENCES)
_MODEL_FILES = (*_WEIGHTS, "*.json", "*.jinja", "*.txt", "*.model", *_LEGAL)
# No Markdown: beside data it says what the data is. 'files' chooses it where it is the text.
_DATA_FILES = tuple(
    f"*{suffix}" for suffix in sorted(COMPRESSED.union(*(row.suffixes for row in FORMATS.values())) - {".md"})
)
_WATCH_SECONDS = 0.5
_LONGEST_REASON = 200
_COMMIT = re.compile("[0-9a-f]{40}$")
_UNDECLARED = Bound(UNDECLARED_BYTES, "the limit of a file without a declared size")


def get(
    source: HubSource, globs: Sequence[str], target: Path, origin: Mapping[str, str], report: Report
) -> Mapping[str, str]:
    """Puts the file, or a folder with the repository's useful files, at `target` and returns the commit they are of.

    Of a split GGUF file all parts come, in a folder.

    With `globs`, the files that these match are meant, of the repository or of the folder in it that the source names; only
    they are downloaded.

    Endpoint, token and offline mode are the client's own: HF_ENDPOINT, HF_TOKEN or `hf auth login`, HF_HUB_OFFLINE.
    Where the client is offline, its cache is read instead; so it is where the hub cannot be reached and a commit is wanted,
    which is the same wherever it comes from.

    Raises:
        SourceUnavailableError: The hub cannot be reached or refuses, or has no such repository, revision or file, or
            only what would have to be unpickled.
        OSError: The disk refuses.
    """
    if source.path is not None and source.path.endswith(PICKLES):
        raise _only_pickles(source, [source.path])
    scratch, wanted = target.with_name(".colbuild-hub"), origin.get("commit", source.revision)
    try:
        sizes, commit = list_files(source, wanted)
        _download(source, _chosen(source, globs, list(sizes)), commit, sizes, scratch, report)
    except FAILURES as error:
        if isinstance(error, OSError) and error.errno is not None and not isinstance(error, ConnectionError):
            raise
        snapshot = find_snapshot(source, wanted) if _may_use_cache(error, wanted) else None
        if snapshot is None:
            raise _unavailable(source, error) from error
        remove(scratch)
        commit = copy_snapshot(source, snapshot, partial(_chosen, source, globs), scratch, report)
    remove(scratch / ".cache")
    _taken(source, globs, scratch).rename(target)
    remove(scratch)
    return {"commit": commit}


def _may_use_cache(error: Exception, revision: str) -> bool:
    """Returns whether the client's cache may stand for the hub."""
    if isinstance(error, errors.OfflineModeIsEnabled):
        return True
    answered = isinstance(error, errors.HfHubHTTPError) and error.response is not None
    return not answered and _COMMIT.match(revision) is not None


def _chosen(source: HubSource, globs: Sequence[str], names: Sequence[str]) -> list[str]:
    """The files of a repository that a source needs."""
    if globs:
        return _matching(source, globs, names)
    if source.path is None:
        return _useful(source, names)
    return list(split_names(source.path)) or [source.path]


def _matching(source: HubSource, globs: Sequence[str], names: Sequence[str]) -> list[str]:
    """The files that a glob matches, of the repository or of the folder that the source names."""
    folder = f"{source.path}/" if source.path is not None else ""
    inside = [name.removeprefix(folder) for name in names if name.startswith(folder)]
    visible = [name for name in inside if not any(part.startswith(".") for part in name.split("/"))]
    found = [name for name in chosen(visible, globs) if not name.endswith(PICKLES)]
    if not found:
        message, hint = unmatched(globs, visible)
        where = f"the {source.kind} {source.repo}" + (f", folder '{source.path}'" if source.path else "")
        raise SourceUnavailableError(f"{where}: {message}", hint=hint, key="files")
    return sorted(folder + name for name in found)


def _taken(source: HubSource, globs: Sequence[str], folder: Path) -> Path:
    """What a source is, in a folder with the repository's files at their places."""
    if source.path is None:
        return folder
    return (folder / source.path).parent if split_names(source.path) and not globs else folder / source.path


def _endpoint() -> str | None:
    return os.environ.get("HF_ENDPOINT") or None


def _useful(source: HubSource, names: Sequence[str]) -> list[str]:
    """The files worth having: of a model those beside its config.json, of a dataset its text and tables."""
    if source.kind == "dataset":
        chosen = [name for name in names if any(fnmatchcase(name, pattern) for pattern in _DATA_FILES)]
        if not chosen:
            raise SourceUnavailableError(f"the dataset {source.repo} holds no text or tables ({_some(names)})")
        return sorted(chosen)
    top = [name for name in names if "/" not in name]
    if not any(fnmatchcase(name, pattern) for name in top for pattern in _WEIGHTS):
        ggufs = [name for name in names if name.endswith(".gguf")]
        if ggufs:
            raise SourceUnavailableError(
                f"the model {source.repo} holds GGUF files and no safetensors: name one of the files",
                hint=f"for example {HUB.beginning}{source.repo}@{source.revision}/{sorted(ggufs)[0]}",
            )
        pickles = [name for name in names if name.endswith(PICKLES)]
        if pickles:
            raise _only_pickles(source, pickles)
        if TOKENIZER not in top:
            raise SourceUnavailableError(f"the model {source.repo} holds no safetensors ({_some(names)})")
        # Nothing but a tokenizer: a family's vocabulary may come from there.
    return sorted(name for name in top if any(fnmatchcase(name, pattern) for pattern in _MODEL_FILES))


def _download(
    source: HubSource, names: Sequence[str], commit: str, sizes: Mapping[str, int | None], folder: Path, report: Report
) -> None:
    total = sum(sizes.get(name) or 0 for name in names)
    Bound(shutil.disk_usage(folder.parent).free, "the free disk space").check(total)
    with _no_bars(), _watched(folder, total, report):
        for name in names:
            size = sizes.get(name)
            bound = _UNDECLARED if size is None else Bound(size, f"the size of {name} that the hub declares")
            with file_bound(bound):
                hf_hub_download(
                    source.repo, name, repo_type=source.kind, revision=commit, local_dir=folder, endpoint=_endpoint()
                )
            # What came by the client's other ways of transfer was not counted.
            bound.check((folder / name).stat().st_size)


@contextmanager
def _no_bars() -> Iterator[None]:
    """Keeps the client from drawing bars into ours."""
    if are_progress_bars_disabled():
        yield
        return
    disable_progress_bars()
    try:
        yield
    finally:
        enable_progress_bars()


@contextmanager
def _watched(folder: Path, total: int, report: Report) -> Iterator[None]:
    """Reports how the folder grows: the client's own way to tell differs between its versions and kinds of transfer."""
    ended = threading.Event()

    def watch() -> None:
        while not ended.wait(_WATCH_SECONDS):
            report(Progress(min(_size(folder), total), total, "bytes", "downloading"))

    watcher = threading.Thread(target=watch, daemon=True)
    report(Progress(0, total, "bytes", "downloading"))
    watcher.start()
    try:
        yield
    finally:
        ended.set()
        watcher.join()
    report(Progress(total, total, "bytes", "downloading"))


def _size(folder: Path) -> int:
    size = 0
    for path in folder.rglob("*"):
        # A partial file is renamed at its end, so it may be gone by now.
        with suppress(OSError):
            size += path.stat().st_size if path.is_file() else 0
    return size


def _only_pickles(source: HubSource, names: Sequence[str]) -> SourceUnavailableError:
    return SourceUnavailableError(
        f"{source.repo} holds pickled weights only ({_some(names)}), which run code when they are loaded",
        hint="use a repository or revision with safetensors, or convert the weights to safetensors",
    )


def _some(names: Sequence[str]) -> str:
    return ", ".join(sorted(names)[:4]) + (", …" if len(names) > 4 else "")


def _unavailable(source: HubSource, error: Exception) -> SourceUnavailableError:
    what = f"the {source.kind} {source.repo}"
    login = "log in with 'hf auth login' or set HF_TOKEN"
    model = source.kind == "model"
    other = f"a {'dataset' if model else 'model'} is {HUB.beginning}{DATASETS if model else ''}{source.repo}"
    # Each is a kind of the one after it.
    if isinstance(error, errors.GatedRepoError):
        return SourceUnavailableError(
            f"{what} is gated, and you have no access", hint=f"ask for access on its page, and {login}"
        )
    if isinstance(error, errors.RepositoryNotFoundError):
        return SourceUnavailableError(
            f"{what} does not exist, or you may not see it", hint=f"check its name ({other}); if it is private, {login}"
        )
    if isinstance(error, errors.RevisionNotFoundError):
        return SourceUnavailableError(
            f"{what} has no revision '{source.revision}'", hint="name a branch, a tag or a full commit hash"
        )
    if isinstance(error, errors.EntryNotFoundError) and not isinstance(error, FileNotFoundError):
        return SourceUnavailableError(f"{what} has no file '{source.path}' at revision '{source.revision}'")
    if isinstance(error, errors.OfflineModeIsEnabled):
        return SourceUnavailableError(
            f"{what} is neither in the store nor in the cache of the hub's client, which is offline",
            hint="unset HF_HUB_OFFLINE to fetch it, or fill the client's cache "
            f"on a machine with a network: {download_command(source)}",
        )
    if isinstance(error, errors.HfHubHTTPError) and error.response is not None:
        status = error.response.status_code
        hint = login if status in (401, 403) else None
        return SourceUnavailableError(f"{what} cannot be fetched: the hub answered with status {status}", hint=hint)
    if isinstance(error, MalformedError):
        return SourceUnavailableError(
            f"{what} cannot be fetched: the hub's answer is not a list of files: {error}",
            hint="check HF_ENDPOINT, and whether a login page or proxy of the network answers for the hub",
        )
    endpoint = _endpoint()
    where = f"the hub at {shown(endpoint)}" if endpoint else "the hub"
    reason = _first_cause(error)
    return SourceUnavailableError(
        f"{what} cannot be fetched from {where}: {reason}",
        hint="check the network and HF_ENDPOINT; sources fetched before need no network",
    )


def _first_cause(error: BaseException) -> str:
    """What a chain of errors began with: the outermost one only says that a file is not in the client's cache."""
    while error.__cause__ is not None:
        error = error.__cause__
    first = str(error).strip().splitlines()[:1]
    return first[0][:_LONGEST_REASON] if first else type(error).__name__
