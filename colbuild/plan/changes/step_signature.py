"""The signature of a step, computed without running it: equal signatures give equal keys, under any names.

A key needs the digests of a step's inputs, which are known only once they are built. A signature takes the inputs' own
signatures for them, so that two plans can be compared before anything of them exists.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from colbuild.hashing import Tag, tagged_digest
from colbuild.plan.drawing.build_graph import BuildGraph
from colbuild.plan.steps.operations import OPERATIONS
from colbuild.spec.sources.choice import split_files, with_files
from colbuild.spec.sources.grammar import parse_source


def signatures(graph: BuildGraph, root: Path, contents: Mapping[str, str] | None = None) -> dict[str, str]:
    """Step id -> signature (64 hex digits), in the order of the graph.

    Args:
        graph: The steps.
        root: The project's root: a relative source is another one in another project.
        contents: Source URI -> what tells its content from another content of the same source; by default all sources are
            what they are now.
    """
    told: dict[str, str] = {}
    for step in graph.steps:
        action = {
            "op": step.op,
            "epoch": OPERATIONS[step.op].epoch,
            "params": dict(step.params),
            "inputs": {name: told[read.step] for name, read in step.reads.items()},
            "sources": {role: [_absolute(uri, root), (contents or {}).get(uri)] for role, uri in step.sources.items()},
        }
        told[step.id] = tagged_digest(Tag.SIGNATURE, action)
    return told


def _absolute(uri: str, root: Path) -> str:
    path = parse_source(uri).local_path
    if path is not None and not path.startswith("/"):
        return with_files((root / path).as_posix(), split_files(uri)[1])
    return uri
