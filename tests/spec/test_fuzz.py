"""Whatever stands in the files: a family comes out, or a SpecError."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from colbuild.errors import SpecError
from colbuild.spec import load_family
from tests.spec.projects import FILES, project

PIECES = (
    """- :: | <<: |null|[]|{}|*x|&x |!!int |1e999|-1|.nan|true|recipe: recipes/distill.yaml|extends: ../x.yaml|0x"""
)
ODD = ["\n  ", "---\n", "9" * 5000, "\ud7ff", "\udc00", "\u2028", "\0", "|", "|\n"]
SNIPPETS = st.sampled_from([*":-{}[],#&*!>'\"%@`\n\t \\?<~0", *PIECES.split("|"), *ODD])


@st.composite
def mutated(draw):
    """A file's name and its text after one to four edits of characters, words or lines."""
    name = draw(st.sampled_from(sorted(FILES)))
    text = FILES[name]
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, len(text)))
        length = draw(st.integers(0, 12))
        edit = draw(st.sampled_from(["replace", "delete", "copy", "lines"]))
        if edit == "replace":
            text = text[:start] + draw(SNIPPETS | st.text(max_size=3)) + text[start + length :]
        elif edit == "delete":
            text = text[:start] + text[start + length :]
        elif edit == "copy":
            text = text[:start] + text[draw(st.integers(0, len(text))) :][:length] + text[start:]
        else:
            lines = text.split("\n")
            lines.insert(draw(st.integers(0, len(lines))), lines.pop(draw(st.integers(0, len(lines) - 1))))
            text = "\n".join(lines)
    return name, text


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("fuzz")


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(mutated())
def test_a_mutated_project_is_a_family_or_a_spec_error(root, change):
    path = project(root)
    name, text = change
    (root / name).write_bytes(text.encode("utf-8", "surrogatepass"))
    try:
        family = load_family(path).family
    except SpecError as error:
        title, first = error.message.split("\n\n")[:2]
        assert "problem" in title
        file, line, column, _ = first.split(":", 3)
        assert (root / file).is_file()
        assert int(line) > 0
        assert int(column) > 0
    else:
        assert family.anchors
        assert family.model_dump(mode="json")
