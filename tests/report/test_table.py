"""The table of a build ends with the AnsNet in fewer bits, and with a package to try: the best one that was measured."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from colbuild.plan.shapes.rounded_ansnet import Alternatives, Rounded
from colbuild.report.screen.screen import as_text
from colbuild.report.screen.table_view import measured_on, print_built
from colbuild.run.building.building import Built
from colbuild.run.building.family_rows import PackageRow, Row
from tests.plan.families import ANSNET


def row(name, *packages):
    return Row(name, "DesNet", "", ANSNET.shape, 1, None, None, None, None, packages)


def text(split, content="./text", generate=None):
    return SimpleNamespace(split=split, content=content, generate=generate)


def plan_of(train, held):
    family = SimpleNamespace(name="fam", data=SimpleNamespace(train=train, eval=held))
    return SimpleNamespace(graph=SimpleNamespace(steps=(1, 2)), loaded=SimpleNamespace(family=family))


def printed(*rows):
    plan = plan_of(text("train"), text("heldout"))
    instead = Alternatives((Rounded("int8", "precision: int8", 153_600_000),), (), len(rows))
    return as_text(lambda console: print_built(plan, Built(rows, ("a",), 1.0, instead), console))


def test_the_best_measured_package_is_the_one_to_try():
    small = row("small", PackageRow("p", 1, Path("out/small/p"), 1.5))
    large = row("large", PackageRow("p", 2, Path("out/large/p"), 1.2), PackageRow("q", 2, Path("out/large/q")))
    told = printed(small, large)
    assert "Try one: colbuild run out/large/p --raw" in told
    assert "AnsNet int8" in told
    assert "at most 153.6 MB" in told
    assert "Try one: colbuild run out/x/p" in printed(row("x", PackageRow("p", 1, Path("out/x/p"))))


@pytest.mark.parametrize(
    ("train", "held", "told"),
    [
        (text("train"), text("heldout"), "held-out text"),
        (text("all"), text("heldout"), "text that anchors may be trained on"),
        (text("train"), text("all"), "text that anchors may be trained on"),
        (text("train"), text("train"), "text that anchors are trained on"),
        (text("all"), text("all", "./other"), "the evaluation's text"),
    ],
    ids=str,
)
def test_the_table_says_on_which_text_models_are_measured(train, held, told):
    assert measured_on(plan_of(train, held)) == told
