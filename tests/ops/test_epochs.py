"""No operation changes its meaning unseen: a result in somebody's store must not be taken for what it no longer is."""

from __future__ import annotations

import ast

import pytest

from colbuild.plan.steps.operations import OPERATIONS
from tests.ops.epochs import (
    FILES,
    LAYERS,
    ROOT,
    Entry,
    _imports,
    _written,
    committed,
    current,
    normal,
    problems,
    sources,
)

ADVICE = """
An operation's code is not what it was. For each of these: where the same inputs now give other outputs, raise its epoch
in colbuild/plan/steps/operations.py. Then, and where the meaning is the same, run: python -m tests.ops.epochs --accept
"""


def test_no_operation_changed_without_its_author_saying_so():
    found = problems(current(), committed())
    assert not found, ADVICE + "\n".join(found)


def test_every_operation_has_an_epoch_and_a_module():
    assert all(
        operation.epoch >= 1 and operation.module.startswith("colbuild.ops.") for operation in OPERATIONS.values()
    )


@pytest.mark.parametrize(
    ("op", "has", "lacks"),
    [
        (
            "distill",
            (
                "ops/shared/student_training.py",
                "train/losses/losses.py",
                "weights/prefix/subset.py",
                "train/corpus/packing.py",
            ),
            ("weights/mixing/alpha_search.py",),
        ),
        (
            "interpolate",
            ("weights/mixing/alpha_search.py", "train/watching/measure.py"),
            ("ops/shared/student_training.py", "weights/align/alignment.py"),
        ),
        (
            "evaluate",
            ("train/watching/measure.py", "ops/shared/running_models.py"),
            ("weights/prefix/subset.py", "train/loop/loop.py", "train/losses/losses.py"),
        ),
        ("source", ("ops/source/gguf_weights.py", "arch/known/llama.py"), ("train/loop/loop.py",)),
        ("order", ("weights/prefix/importance.py", "weights/prefix/selection.py"), ("train/losses/losses.py",)),
        (
            "corpus",
            ("fetch/texts/formats/mediawiki.py", "train/corpus/packing.py", "ops/__init__.py"),
            ("weights/files/checkpoint.py",),
        ),
    ],
)
def test_sources_are_what_an_operation_imports_from_the_layers_that_decide(op, has, lacks):
    found = {path.relative_to(ROOT / "colbuild").as_posix() for path in sources(op)}
    assert set(has) <= found
    assert not set(lacks) & found
    files = {f"{name.replace('.', '/')}.py" for name in FILES}
    assert {name.split("/")[0] for name in found - files} <= set(LAYERS)


def test_imports_inside_functions_and_of_submodules_count(tmp_path):
    path = tmp_path / "module.py"
    path.write_text("import a.b\nfrom c import d\ndef run():\n    from e.f import g\n")
    assert {"a.b", "c.d", "e.f", "e.f.g"} <= set(_imports(path))


@pytest.mark.parametrize(
    "same",
    [
        'def f(x):\n    """Says more."""\n    return x + 1\n',
        "# A comment.\ndef f(x):\n    return (x\n            + 1)  # here too\n",
        '"""A module."""\n\ndef f(x): return x+1\n',
    ],
)
def test_comments_docstrings_and_format_do_not_count(same):
    assert normal(same) == normal("def f(x):\n    return x + 1\n")


@pytest.mark.parametrize(
    "other",
    [
        "def f(x):\n    return x + 2\n",
        "def f(x):\n    return x - 1\n",
        "def f(x, y=None):\n    return x + 1\n",
        "def f(x):\n    return x + 1.0\n",
        "def g(x):\n    return x + 1\n",
        "@cache\ndef f(x):\n    return x + 1\n",
    ],
)
def test_code_counts(other):
    assert normal(other) != normal("def f(x):\n    return x + 1\n")


def test_none_and_nothing_are_told_apart():
    assert normal("def f(): return None") != normal("def f(): return")
    assert _written(ast.parse("f(None)")) != _written(ast.parse("f()"))


def test_table_says_what_is_to_be_decided():
    before = {"order": Entry(2, "a"), "gone": Entry(1, "z")}
    assert problems({"order": Entry(2, "a"), "gone": Entry(1, "z")}, before) == []
    assert "no longer" in problems({"order": Entry(2, "a")}, before)[0]
    del before["gone"]
    assert "its epoch did not" in problems({"order": Entry(2, "b")}, before)[0]
    assert "rose from 2 to 3" in problems({"order": Entry(3, "b")}, before)[0]
    assert "rose from 2 to 3" in problems({"order": Entry(3, "a")}, before)[0]
    assert "only rises" in problems({"order": Entry(1, "a")}, before)[0]
    assert "not in the table" in problems({"order": Entry(2, "a"), "new": Entry(1, "n")}, before)[0]
