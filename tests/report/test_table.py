"""The table of a build ends with the AnsNet in fewer bits, and with a package to try: the best one that was measured."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

from colbuild.plan.shapes.rounded_ansnet import Alternatives, Rounded
from colbuild.report.screen.screen import as_text
from colbuild.report.screen.table_view import print_built
from colbuild.run.building.building import Built
from colbuild.run.building.family_rows import PackageRow, Row
from tests.plan.families import ANSNET


def row(name, *packages):
    return Row(name, "DesNet", "", ANSNET.shape, 1, None, None, None, None, packages)


def printed(*rows):
    graph = SimpleNamespace(steps=(1, 2))
    plan = SimpleNamespace(graph=graph, loaded=SimpleNamespace(family=SimpleNamespace(name="fam")))
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
