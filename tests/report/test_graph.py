"""The graph in each of its forms shows every step once, and what each is made of."""

from __future__ import annotations

import re
import shutil
import subprocess
import xml.etree.ElementTree as ET
from dataclasses import replace
from itertools import combinations
from pathlib import Path

import networkx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from colbuild.plan.changes.states import State, StepPlan
from colbuild.report.graph import FORMATS, dot, drawn_edges, mermaid, svg_graph, tree_lines
from colbuild.report.graph_layout import place
from tests.helpers.golden import check_file
from tests.helpers.steps import named_step
from tests.plan.built import world
from tests.plan.families import DISTILL

GOLDEN = Path(__file__).parent / "golden"


def tree(steps, title):
    """The tree as one text."""
    return "\n".join(line.text for line in tree_lines(steps, title)) + "\n"


FORMS = {"ascii": tree, **FORMATS}
SVG = "{http://www.w3.org/2000/svg}"
NASTY = '<b>&"\\]}%`#\x07\n;--x'
"""Nothing that a name may be; what is written must be safe all the same."""


@pytest.fixture(scope="module")
def steps(tmp_path_factory):
    """A family built, and then one recipe value changed: three states."""
    fam = world(tmp_path_factory.mktemp("fam"))
    fam.build()
    return tuple(fam.plan(distill=DISTILL.replace("temperature: 1.0", "temperature: 2.0")).values())


def plan(step_id, *inputs, state=State.NEW, why="new"):
    step = named_step(step_id, "distill", {}, inputs={f"role{index}": needed for index, needed in enumerate(inputs)})
    return StepPlan(step, state, why, None, None, None)


# -- golden -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", FORMS)
def test_a_family_in_each_form(steps, form):
    suffix = {"ascii": "txt", "mermaid": "mmd"}.get(form, form)
    check_file(GOLDEN / f"family.{suffix}", FORMS[form](steps, "fam"))


@pytest.mark.parametrize("form", FORMS)
def test_a_family_without_steps_is_drawn_without_them(form):
    assert "fam" in FORMS[form]((), "fam")


# -- edges ------------------------------------------------------------------------------------------------------------


def test_every_model_that_something_is_made_of_has_an_edge_to_it(steps):
    edges = drawn_edges(steps)
    assert ("distill a100", "interpolate phone") in edges
    assert ("distill a76", "interpolate phone") in edges


def test_text_and_reference_have_edges_only_where_nothing_else_implies_them(steps):
    edges = drawn_edges(steps)
    assert [target for source, target in edges if source == "corpus train"] == ["order ansnet", "evaluate ansnet"]
    needed = networkx.DiGraph((source, plan.step.id) for plan in steps for source in plan.step.inputs.values())
    closure = networkx.transitive_closure(networkx.DiGraph(edges))
    assert set(closure.edges) == set(networkx.transitive_closure(needed).edges)


# -- the tree ---------------------------------------------------------------------------------------------------------


def test_tree_is_ascii_and_shows_each_step_once_with_its_state(steps):
    lines = tree_lines(steps, "fam")
    assert all(line.text.isascii() for line in lines)
    shown = [re.sub(r"^[|` -]*([=+~?]) ", r"\1 ", line.text).partition("  (with")[0] for line in lines[1:]]
    assert sorted(shown) == sorted(f"{plan.state.value} {plan.step.id}" for plan in steps)


def test_tree_of_a_chain_longer_than_the_stack_is_drawn():
    chain = [plan("distill 0"), *(plan(f"distill {index}", f"distill {index - 1}") for index in range(1, 1500))]
    assert len(tree(chain, "long").splitlines()) == 1501


# -- Mermaid and dot --------------------------------------------------------------------------------------------------


def test_mermaid_keeps_marks_of_its_own_out_of_labels():
    text = mermaid([plan(f"distill {NASTY}")], f"fam\n{NASTY}")
    [label] = re.findall(r'^  s0\["(.*)"\]:::new$', text, re.MULTILINE)
    assert not set('"`&') & set(re.sub(r"#(\d+|[a-z]+);", "", label))
    assert text.splitlines()[1] == "flowchart LR"


def test_dot_escapes_what_it_quotes():
    text = dot([plan(f"distill {NASTY}", why=NASTY)], NASTY)
    for line in text.splitlines():
        assert re.sub(r'"(\\.|[^"\\])*"', "", line).count('"') == 0


@pytest.mark.skipif(shutil.which("dot") is None, reason="Graphviz is not installed")
def test_graphviz_reads_the_dot_form(steps):
    for text in (dot(steps, "fam"), dot([plan(f"distill {NASTY}", why=NASTY)], NASTY)):
        read = subprocess.run(["dot", "-Tplain"], input=text, capture_output=True, text=True, check=True)
        assert read.stderr == ""


# -- SVG --------------------------------------------------------------------------------------------------------------


def boxes_of(text):
    """Title -> (left, top, right, bottom) of every box."""
    found = {}
    for group in ET.fromstring(text).iter(f"{SVG}g"):
        title, rect = group.find(f"{SVG}title"), group.find(f"{SVG}rect")
        if title is not None and rect is not None:
            left, top, width, height = (float(rect.get(key)) for key in ("x", "y", "width", "height"))
            found[title.text] = (left, top, left + width, top + height)
    return found


def test_svg_is_xml_with_a_box_for_each_step_and_its_reason_as_a_tooltip(steps):
    assert set(boxes_of(svg_graph(steps, "fam"))) == {f"{plan.step.id}: {plan.why}" for plan in steps}


def test_svg_escapes_every_word():
    root = ET.fromstring(svg_graph([replace(plan(f"distill {NASTY}"), why=NASTY)], NASTY))
    words = [text.text for text in root.iter(f"{SVG}text")]
    assert NASTY.replace("\x07", " ").replace("\n", " ") in words
    assert all(element.tag.startswith(SVG) for element in root.iter())
    assert not list(root.iter(f"{SVG}b"))


def test_no_box_overlaps_another_or_leaves_the_picture(steps):
    text = svg_graph(steps, "fam")
    root = ET.fromstring(text)
    boxes = list(boxes_of(text).values())
    for left, top, right, bottom in boxes:
        assert 0 <= left < right <= float(root.get("width"))
        assert 0 <= top < bottom <= float(root.get("height"))
    for one, other in combinations(boxes, 2):
        assert one[2] < other[0] or other[2] < one[0] or one[3] < other[1] or other[3] < one[1]


@settings(max_examples=80, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 14), st.integers(0, 14)).filter(lambda pair: pair[0] < pair[1]), max_size=40))
def test_any_graph_is_laid_out_from_left_to_right_with_room_for_every_box_and_line(pairs):
    boxes = [f"n{index}" for index in range(15)]
    edges = [(f"n{low}", f"n{high}") for low, high in dict.fromkeys(pairs)]
    placing = place(boxes, edges)
    assert len(placing.routes) == len(edges)
    for (source, target), route in zip(edges, placing.routes, strict=True):
        assert route[0] == placing.boxes[source]
        assert route[-1] == placing.boxes[target]
        first, last = route[0][0], route[-1][0]
        assert [column for column, _ in route] == list(range(first, last + 1))
    for one, other in combinations(placing.boxes.values(), 2):
        assert one[0] != other[0] or abs(one[1] - other[1]) >= 1 - 1e-9
    bends = [point for route in placing.routes for point in route[1:-1]]
    for column, row in bends:
        assert all(column != other[0] or abs(row - other[1]) >= 0.75 - 1e-9 for other in placing.boxes.values())
