"""No module outside `colbuild/arch` names an architecture: what it must know of one stands in the architecture's file."""

from __future__ import annotations

import ast
import re
from dataclasses import fields
from importlib import import_module
from pathlib import Path

from colbuild.arch import ARCHITECTURES, Architecture
from colbuild.arch.gguf_form import GGUFForm

ROOT = Path(__file__).parents[2] / "colbuild"
NAMES = {name for table in ARCHITECTURES.values() for name in (table.name, table.gguf and table.gguf.name) if name}
OTHER_NAMES = {
    # Kinds of tokenizers and ways to cut texts, which llama.cpp calls after the models that had them first.
    "ops/source/gguf_tokenizer.py": {"gpt2", "llama", "qwen2"},
    # A repository on the hub that people write without its owner.
    "spec/sources/hub_pages.py": {"gpt2"},
}
"""File -> what in it is called like an architecture and is none."""


def literals(path: Path) -> set[str]:
    """Every text in a module but its docstrings; none where no architecture's name occurs."""
    content = path.read_text(encoding="utf-8")
    tree = ast.parse(content if any(name in content for name in NAMES) else "")
    docs = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    return {
        node.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docs
    }


def named(path: Path) -> set[str]:
    """The architectures that a module names: by themselves, or as the beginning of a tensor's name."""
    found = literals(path)
    return {name for name in NAMES if any(text == name or text.startswith(f"{name}.") for text in found)}


def test_no_module_outside_names_an_architecture():
    modules = {str(path.relative_to(ROOT)): path for path in ROOT.rglob("*.py")}
    outside = {name: named(path) for name, path in modules.items() if not name.startswith("arch/known/")}
    assert {name: found for name, found in outside.items() if found} == OTHER_NAMES


def test_the_page_lists_every_architecture_and_every_field_of_a_table():
    page = (ROOT.parent / "docs/architectures.md").read_text(encoding="utf-8")
    listed = re.findall(r"^\| `(\w+)` \|", page.partition("## Adding one")[0], re.MULTILINE)
    assert sorted(listed) == sorted([*ARCHITECTURES, "model_type"])
    rows = re.findall(r"^   \| (`[^|]*) \|", page, re.MULTILINE)
    told = {name for row in rows for name in re.findall(r"`(\w+)`", row)}
    assert told == {field.name for field in fields(Architecture) if field.init}


def test_an_architecture_is_named_in_its_own_file_alone():
    files = {path.stem: named(path) for path in (ROOT / "arch/known").glob("*.py") if path.stem != "__init__"}
    assert len(files) == len(ARCHITECTURES)
    for file, found in files.items():
        own = import_module(f"colbuild.arch.known.{file}").TABLE
        form = own.gguf or GGUFForm(own.name, None)
        assert found == {own.name, form.name, form.tokenizer_of or own.name}, file
