"""What users write: families, recipes and device profiles."""

from __future__ import annotations

from pathlib import Path
from random import Random
from typing import Final

import yaml

from tests.fuzz.frame import Driver
from tests.fuzz.mutate import mutated_bytes, mutated_value
from tests.helpers.project import ROOT


def _start(_folder: Path) -> list[bytes]:
    import colbuild.spec  # noqa: F401

    return [path.read_bytes() for path in sorted((ROOT / "specs").glob("*.yaml"))]


def _make(seeds: list[bytes], random: Random, folder: Path) -> None:
    seed = random.choice(seeds)
    if random.random() < 0.5:
        changed = mutated_bytes(random, seed)
    else:
        changed = yaml.safe_dump(mutated_value(random, yaml.safe_load(seed)), allow_unicode=True).encode(
            "utf-8", "replace"
        )
    (folder / "family.yaml").write_bytes(changed)


def _attempt(_seeds: list[bytes], folder: Path) -> None:
    from colbuild.spec import load_family

    load_family(folder / "family.yaml")


DRIVERS: Final = (Driver("family.yaml", _start, _make, _attempt),)
