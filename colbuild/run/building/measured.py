"""Reads the figures that evaluations and exports leave.

A damaged result is found and built again by the next build; until then nothing is told of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import isfinite, log2
from pathlib import Path
from typing import Final

from colbuild.plan.steps.export import MANIFEST
from colbuild.store.durable_files import read_json

_TOKENIZER: Final = "tokenizer.json"


@dataclass(frozen=True)
class PackageFacts:
    """A built package, from its manifest.

    Attributes:
        size: Its bytes.
        tokenizer: Bytes of its tokenizer; None if it has none.
        increase: Its perplexity on held-out text over that of its model: 1.05 is 5% more; None if it was not measured.
        agreement: How often its most likely token is its model's, 0 to 1; None as above.
    """

    size: int
    tokenizer: int | None
    increase: float | None
    agreement: float | None


def package_facts(folder: Path | None) -> PackageFacts | None:
    """Returns the facts of a package; None if it is not built or its manifest is damaged.

    Plans ask this of every package, and a whole check of a manifest takes ten times as long as reading it.
    """
    found = None if folder is None else read_json(folder / MANIFEST)
    if folder is None or not isinstance(found, dict):
        return None
    try:
        files = {str(file["path"]): int(file["size"]) for file in found["files"]}
        size = sum(files.values()) + (folder / MANIFEST).stat().st_size
        quality = found["quality"]
        if quality is None:
            return PackageFacts(size, files.get(_TOKENIZER), None, None)
        increase, agreement = 1 + float(quality["increase"]), float(quality["top1_agreement"])
    except (KeyError, TypeError, ValueError, OverflowError, OSError):
        return None
    sound = isfinite(increase) and increase > 0 and 0 <= agreement <= 1
    return PackageFacts(size, files.get(_TOKENIZER), increase, agreement) if sound else None


def package_bits_per_byte(package: PackageFacts | None, metrics: Mapping[str, float]) -> float | None:
    """Returns a package's bits per byte of held-out text: its model's, and what the package's perplexity adds to that.

    Args:
        package: The package; None if it is not built.
        metrics: What `metrics_in` found of its model.
    """
    bits_per_byte, perplexity = metrics.get("bits_per_byte"), metrics.get("perplexity", 0)
    if package is None or package.increase is None or bits_per_byte is None or perplexity <= 1:
        return None
    return bits_per_byte * (1 + log2(package.increase) / log2(perplexity))


def metrics_in(folder: Path | None) -> Mapping[str, float]:
    """Returns the finite figures of an evaluation's result; none if there is no result, or it is damaged."""
    found = None if folder is None else read_json(folder / "metrics.json")
    if not isinstance(found, dict):
        return {}
    return {name: value for name, value in found.items() if isinstance(value, int | float) and isfinite(value)}
