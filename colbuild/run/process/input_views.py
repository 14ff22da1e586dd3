"""The inputs that a step sees: of a model, only the files of the parts in the step's key.

::

    inputs {"teacher.weights": d1, "teacher.tokenizer": d2, "corpus": d3}
        teacher   a folder of links to the weights in d1 and the tokenizer in d2
        corpus    the result d3 itself
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from colbuild.hashing import canonical_json, hash_bytes
from colbuild.plan.drawing.parts import files_of
from colbuild.plan.drawing.step import part_named, role_of
from colbuild.store import Store


@contextmanager
def shown(inputs: Mapping[str, str], store: Store) -> Iterator[dict[str, Path]]:
    """Role -> folder, for the time of a step. Two roles that read the same of the same results have one folder.

    Args:
        inputs: Name of `Step.reads` -> digest of the result that it is read from, which is in the store.
        store: Where the results are.
    """
    whole = {name: store.files(digest) for name, digest in inputs.items() if part_named(name) is None}
    parts: dict[str, dict[str, str]] = {}
    for name, digest in inputs.items():
        part = part_named(name)
        if part is not None:
            parts.setdefault(role_of(name), {})[part] = digest
    with store.scratch() as scratch:
        yield whole | {role: _view(chosen, store, scratch) for role, chosen in parts.items()}


def _view(chosen: Mapping[str, str], store: Store, scratch: Path) -> Path:
    folder = scratch / hash_bytes(canonical_json(dict(chosen)))[:16]
    for part, digest in {} if folder.exists() else chosen.items():
        tree = store.tree(digest)
        assert tree is not None, "the caller has checked the result"
        for entry in files_of(tree.entries, part):
            link = folder / entry.path
            link.parent.mkdir(parents=True, exist_ok=True)
            if not link.is_symlink():
                # Links, not hard links: these would change the times by which the store knows its files.
                link.symlink_to(store.files(digest) / entry.path)
    folder.mkdir(exist_ok=True)
    return folder
