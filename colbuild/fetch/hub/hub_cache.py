"""Reads the cache of the hub's client without a network: files from `hf download` or transformers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import huggingface_hub
from huggingface_hub import errors, snapshot_download

from colbuild.documents import read_json_file
from colbuild.errors import SourceUnavailableError
from colbuild.progress import Progress, Report
from colbuild.spec.sources.source_kinds import HubSource, is_plain_path

_DAMAGE = (ValueError, TypeError, KeyError, AttributeError, RecursionError)
_BLOCK = 16 << 20
_INDEX = "model.safetensors.index.json"


def find_snapshot(source: HubSource, revision: str) -> Path | None:
    """The folder with a repository's files at a revision, as far as the cache has them; None if it has none.

    Its name is the commit.
    """
    try:
        return Path(snapshot_download(source.repo, repo_type=source.kind, revision=revision, local_files_only=True))
    except errors.LocalEntryNotFoundError as error:
        # Newer clients refuse a snapshot that lacks any file of the repository, one that is not needed among them.
        found = getattr(error, "snapshot_path", None)
        return None if found is None else Path(found)
    except ValueError:
        return None


def copy_snapshot(
    source: HubSource,
    snapshot: Path,
    choose: Callable[[Sequence[str]], list[str]],
    folder: Path,
    report: Report,
) -> str:
    """Copies what a source needs out of a snapshot, to the same places in a folder; returns the commit.

    Args:
        source: The source.
        snapshot: The snapshot, which may lack files that the repository has.
        choose: Which of the files that are there are needed.
        folder: Where to; it need not exist.
        report: Told how much is copied.

    Raises:
        SourceUnavailableError: The cache lacks a file that is needed.
        OSError: The disk refuses.
    """
    present = [path.relative_to(snapshot).as_posix() for path in sorted(snapshot.rglob("*")) if path.is_file()]
    try:
        names = choose(_listed(source, snapshot.name) or present)
    except SourceUnavailableError as error:
        raise _incomplete(source, error.message) from error
    missing = sorted({*names, *_shards(snapshot, names)} - set(present))
    if missing:
        raise _incomplete(source, f"it lacks {', '.join(missing[:3])}")
    sizes = {name: (snapshot / name).stat().st_size for name in names}
    done, total = 0, sum(sizes.values())
    for name in names:
        place = folder / name
        place.parent.mkdir(parents=True, exist_ok=True)
        with (snapshot / name).open("rb") as content, place.open("xb") as file:
            while block := content.read(_BLOCK):
                file.write(block)
                done += len(block)
                report(Progress(done, total, "bytes", "copying from the hub client's cache"))
    return snapshot.name


def download_command(source: HubSource) -> str:
    """The command that fills the client's cache with a repository."""
    kind = " --repo-type dataset" if source.kind == "dataset" else ""
    return f"hf download {source.repo}{kind} --revision {source.revision}"


def _listed(source: HubSource, commit: str) -> list[str] | None:
    """Every file of the repository, where the client noted that as it downloaded a snapshot (2.4 and later)."""
    read = getattr(huggingface_hub, "get_cached_repo_tree", None)
    if read is None:
        return None
    try:
        tree = read(source.repo, repo_type=source.kind, revision=commit)
        # A name that leads elsewhere cannot come from git.
        return [file.path for file in tree if is_plain_path(file.path)]
    except (errors.CachedRepoTreeNotFoundError, *_DAMAGE):
        return None


def _shards(snapshot: Path, names: Sequence[str]) -> set[str]:
    """The files of weights that an index lists; one that cannot be read lists none, and is refused when it is used."""
    if _INDEX not in names:
        return set()
    try:
        return {str(name) for name in read_json_file(snapshot / _INDEX)["weight_map"].values()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return set()


def _incomplete(source: HubSource, why: str) -> SourceUnavailableError:
    return SourceUnavailableError(
        f"the cache of the hub's client, which is offline, does not have all of the {source.kind} {source.repo}: {why}",
        hint=f"fill the cache on a machine with a network: {download_command(source)}",
    )
