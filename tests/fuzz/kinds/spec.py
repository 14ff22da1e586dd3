"""What users write: families, recipes and device profiles."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from random import Random
from typing import Any, Final

import yaml

from tests.fuzz.frame import Driver
from tests.fuzz.mutate import mutated_bytes, mutated_value
from tests.helpers.project import ROOT

Case = Callable[[Path, Path], None]
_FOLDERS: Final = ("specs", "recipes", "exports")
_FAMILY: Final = "specs/family.yaml"


def _start(folder: Path) -> Path:
    for name in _FOLDERS:
        shutil.copytree(ROOT / name, folder / name)
    _attempt(folder, folder)
    return folder


def _attempt(_seeds: Path, folder: Path) -> None:
    """As `plan` reads a family, with what it warns of."""
    from colbuild.spec import load_family
    from colbuild.spec.project.plausible import unlikely

    loaded = load_family(folder / _FAMILY)
    unlikely(loaded.family, loaded.places)


def _make(kind: str) -> Callable[[Path, Random, Path], None]:
    def make(seeds: Path, random: Random, folder: Path) -> None:
        _copied(seeds, folder)
        files = sorted((folder / kind).glob("*.yaml"))
        changed = random.choice(files)
        written = folder / _FAMILY if kind == "specs" else changed
        written.write_bytes(_changed(random, changed.read_bytes()))

    return make


def _changed(random: Random, seed: bytes) -> bytes:
    if random.random() < 0.5:
        return mutated_bytes(random, seed)
    value = mutated_value(random, yaml.safe_load(seed))
    return yaml.safe_dump(value, allow_unicode=random.random() < 0.5).encode("utf-8", "replace")


def _copied(seeds: Path, folder: Path) -> None:
    for name in _FOLDERS:
        shutil.copytree(seeds / name, folder / name)


def _with(name: str, content: str | bytes) -> Case:
    def case(seeds: Path, folder: Path) -> None:
        _copied(seeds, folder)
        (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode("utf-8", "surrogatepass"))

    return case


def _added(text: str, name: str = _FAMILY) -> Case:
    def case(seeds: Path, folder: Path) -> None:
        _copied(seeds, folder)
        (folder / name).write_text((folder / name).read_text() + text)

    return case


def _special(name: str) -> Mapping[str, Case]:
    def replacing(make: Callable[[Path], None]) -> Case:
        def case(seeds: Path, folder: Path) -> None:
            _copied(seeds, folder)
            (folder / name).unlink()
            make(folder / name)

        return case

    return {
        f"{name} is a pipe": replacing(os.mkfifo),
        f"{name} is a device": replacing(lambda path: path.symlink_to("/dev/zero")),
        f"{name} is a folder": replacing(Path.mkdir),
        f"{name} is a socket": replacing(_socket),
        f"{name} is large": replacing(lambda path: _sparse(path, 3_000_000_000)),
    }


def _socket(path: Path) -> None:
    import socket

    here = Path.cwd()
    os.chdir(path.parent)  # A socket's path has at most some 100 characters.
    try:
        with socket.socket(socket.AF_UNIX) as made:
            made.bind(path.name)
    finally:
        os.chdir(here)


def _sparse(path: Path, size: int) -> None:
    with path.open("wb") as file:
        file.truncate(size)


def _laughs(levels: int, width: int) -> str:
    above = (f"a{level}: &a{level} [{', '.join([f'*a{level - 1}'] * width)}]" for level in range(1, levels))
    return "\n".join(["", "a0: &a0 [x, x]", *above, ""])


def _chain(seeds: Path, folder: Path) -> None:
    _copied(seeds, folder)
    for number in range(100):
        (folder / f"recipes/r{number}.yaml").write_text(f"extends: recipes/r{number + 1}.yaml\n")
    (folder / "recipes/distill.yaml").write_text("extends: recipes/r0.yaml\ntokens: 1M\n")


def _anchors(count: int, recipe: str) -> Case:
    def case(seeds: Path, folder: Path) -> None:
        _copied(seeds, folder)
        (folder / "recipes/large.yaml").write_text(recipe)
        family: dict[str, Any] = yaml.safe_load((folder / _FAMILY).read_text())
        named = [{"name": f"n{number}", "layers": 3, "recipe": "recipes/large.yaml"} for number in range(count)]
        family["chain"]["anchors"] = named
        (folder / _FAMILY).write_text(json.dumps(family))

    return case


def _profiles(seeds: Path, folder: Path) -> None:
    _copied(seeds, folder)
    family: dict[str, Any] = yaml.safe_load((folder / _FAMILY).read_text())
    family["desnets"] = [{"name": f"d{n}", "params": 80_000_000} for n in range(900)]
    family["defaults"]["exports"] = ["phone-int8"] * 900
    (folder / _FAMILY).write_text(json.dumps(family))


_RECIPE: Final = "recipes/distill.yaml"
_PROFILE: Final = "exports/phone-int8.yaml"
_CASES: Final[Mapping[str, Case]] = {
    "deep lists": _with(_FAMILY, "a: " + "[" * 400_000),
    "deep maps": _with(_FAMILY, "{a: " * 200_000),
    "deep blocks": _with(_FAMILY, "- " * 400_000),
    "deep indents": _with(_FAMILY, "".join(" " * level + "a:\n" for level in range(1300))),
    "laughs": _added(_laughs(20, 10)),
    "an alias in itself": _added("\nx: &x [*x]\n"),
    "a tag": _added("\nx: !!python/object/apply:os.system ['touch ../outside/written']\n"),
    "a long number": _added("\nx: " + "9" * 500_000 + "\n"),
    "a long key": _added("\n" + "k" * 900 + ": 1\n"),
    "a key too long": _added("\n? " + "k" * 500_000 + "\n: 1\n"),
    "a key that is a list": _added("\n? [a, {b: c}]\n: 1\n"),
    "many mistakes in a line": _added("\nx: {" + "a: 1, " * 90_000 + "}\n"),
    "many unknown keys": _added("\n" + "".join(f"k{number}: 1\n" for number in range(40_000))),
    "many anchors and aliases": _added("\nx: [" + ", ".join(f"&a{n} 1, *a{n}" for n in range(20_000)) + ", *none]\n"),
    "lost aliases": _added("\nx: [" + "*none, " * 90_000 + "]\n"),
    "control characters": _added("\n# \x1b[2J\x07\n"),
    "not UTF-8": _with(_FAMILY, b"\xff\xfea\x00"),
    "half a surrogate pair": _with(_FAMILY, "a: \ud800\n"),
    "a directive": _with(_FAMILY, "%YAML 9.9\n%TAG ! tag:x,2000:\n--- !a b\n"),
    "two documents": _with(_FAMILY, "---\n" * 300_000),
    "recipes in a row": _chain,
    "many anchors": _anchors(8000, "tokens: 1M\n"),
    "anchors with a large recipe": _anchors(900, "".join(f"k{number}: 1\n" for number in range(900))),
    "one profile many times": _added(f"\n  exports: [{'phone-int8, ' * 900}]\n"),
    "many profiles": _profiles,
    **_special(_FAMILY),
    **_special(_RECIPE),
    **_special(_PROFILE),
}

DRIVERS: Final = (
    Driver("family.yaml", _start, _make("specs"), _attempt, _CASES),
    Driver("recipe.yaml", _start, _make("recipes"), _attempt),
    Driver("profile.yaml", _start, _make("exports"), _attempt),
)
