"""Small projects for the tests: files written into a folder, and the problems that loading them raises."""

from __future__ import annotations

from pathlib import Path

import pytest

from colbuild.errors import EXIT_SPEC_ERROR, SpecError
from colbuild.spec import LoadedFamily, load_family

RECIPE = """\
tokens: 1M
seed: 3
loss:
  temperature: 2.0
  kd_weight: 0.5
optimizer: {lr: 1e-3, betas: [0.8, 0.9]}
"""

PROFILE = """\
precision: int8
block: 64
"""

FAMILY = """\
apiVersion: colbuild/v1
name: tiny
ansnet:
  source: ./ansnet
data:
  train: {source: ./corpus.jsonl, limit: 1MB}
chain:
  recipe: recipes/distill.yaml
  tokens: 50k
  anchors:
    - {name: a2, params: 2M}
    - {name: a1, params: 1M, tokens: 10k, loss: {temperature: 4}}
desnets:
  - {name: phone, params: 1.5M, exports: [phone-int8]}
  - name: watch
    shape: {layers: 2}
"""

FILES = {"specs/family.yaml": FAMILY, "recipes/distill.yaml": RECIPE, "exports/phone-int8.yaml": PROFILE}


def project(root: Path, **changed: str | bytes | None) -> Path:
    """Writes a project and returns its family's path. Keys are paths with "/" as "__" and no suffix; None: no file."""
    files: dict[str, str | bytes | None] = dict(FILES)
    files.update({f"{name.replace('__', '/').replace('_', '-')}.yaml": text for name, text in changed.items()})
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if text is not None:
            path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return root / "specs/family.yaml"


def load(root: Path, **changed: str | bytes | None) -> LoadedFamily:
    """Loads a project written by `project`."""
    return load_family(project(root, **changed))


def problems(root: Path, **changed: str | bytes | None) -> list[str]:
    """The problems of a project, one text each, without source lines and carets: "place: message = hint"."""
    with pytest.raises(SpecError) as caught:
        load(root, **changed)
    assert caught.value.exit_code == EXIT_SPEC_ERROR
    title, *found = caught.value.message.split("\n\n")
    assert title == ("1 problem" if len(found) == 1 else f"{len(found)} problems") + " in the spec"
    return [_short(text) for text in found]


def _short(text: str) -> str:
    first, *rest = text.split("\n")
    hints = [line.strip() for line in rest if line.strip().startswith("= ")]
    return " ".join([first, *hints])


def family(old: str, new: str) -> str:
    """The family's text with one part replaced."""
    assert FAMILY.count(old) == 1, old
    return FAMILY.replace(old, new)
