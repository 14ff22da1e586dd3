"""Every source that a family names, and the value that names it."""

from __future__ import annotations

from colbuild.plan.shapes.bridge_shape import tokenizer_source
from colbuild.spec.model.family import Family
from colbuild.spec.text.places import Path as ValuePath


def source_uris(family: Family) -> tuple[str, ...]:
    """Every source of a family, once each."""
    return tuple(source_paths(family))


def source_paths(family: Family) -> dict[str, ValuePath]:
    """Every source of a family -> the path of the value that names it, the first one where several do."""
    data = family.data
    starts = (
        (anchor.init.checkpoint, ("anchors", index, "init", "checkpoint"))
        for index, anchor in enumerate(family.anchors)
        if anchor.init is not None
    )
    every: tuple[tuple[str | None, ValuePath], ...] = (
        (family.ansnet.source, ("ansnet", "source")),
        (data.train.content, ("data", "train", "source")),
        (data.eval.content, ("data", "eval", "source")),
        (tokenizer_source(family.bridge), ("bridge", "tokenizer")),
        *starts,
    )
    paths: dict[str, ValuePath] = {}
    for uri, path in every:
        if uri is not None:
            paths.setdefault(uri, path)
    return paths
