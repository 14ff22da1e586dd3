"""Every example of docs/python.md, and the README's, runs on the tiny family as it stands on the page."""

from __future__ import annotations

import re
import shutil

import pytest

from tests.helpers.project import ROOT
from tests.helpers.tiny import make_tiny_model, make_tiny_tokenizer, tiny_documents

_BLOCK = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)

TINY = {
    "a116": "large",
    "a88": "small",
    "tablet/phone-int4": "middle/tiny-int8",
    "phone/phone-int4": "middle/tiny-int8",
    "phone-int8.yaml": "tiny-int8.yaml",
    '"phone"': '"middle"',
    '"90M"': '"330k"',
    '"95M"': '"330k"',
    '"16k"': '"256"',
}
"""The default family's names and sizes -> those of the tiny one."""


def examples(page: str) -> list[str]:
    """The code of a page, with the tiny family's names."""
    blocks = _BLOCK.findall((ROOT / page).read_text(encoding="utf-8"))
    for name, tiny in TINY.items():
        blocks = [block.replace(name, tiny) for block in blocks]
    return blocks


@pytest.fixture(scope="module")
def built(finished_project, tmp_path_factory):
    """A copy of the finished project, whose family is the default one, with two models beside it."""
    folder = tmp_path_factory.mktemp("python-page") / "project"
    shutil.copytree(finished_project[0], folder, symlinks=True)
    shutil.copy(folder / "specs/tiny.yaml", folder / "specs/family.yaml")
    for name, lengths in {"large": {}, "small": {"layers": 4, "ffn": 128, "seed": 1}}.items():
        make_tiny_model(folder / "models" / name, **lengths)
        make_tiny_tokenizer(folder / "models" / name)
    (folder / "models/large/LICENSE").write_text("MIT")
    (folder / "corpus.txt").write_text("\n\n\n".join(tiny_documents(60)))
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("page", ["docs/python.md", "README.md"])
def test_every_example_of_the_page_runs(built, page, monkeypatch, capsys):
    monkeypatch.chdir(built)
    monkeypatch.delenv("COLBUILD_STORE", raising=False)
    blocks = examples(page)
    assert blocks
    names = {"__name__": "example"}
    for block in blocks:
        exec(compile(block, page, "exec"), names)
    if page == "docs/python.md":
        assert "nothing to do" in capsys.readouterr().out
        assert (built / "models/of-two/LICENSE").read_text() == "MIT"
        assert names["between"].parameters == pytest.approx(330_000, rel=0.01)
        assert names["found"].problems == ()
