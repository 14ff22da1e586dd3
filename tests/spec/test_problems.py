from __future__ import annotations

from colbuild.errors import SpecError
from colbuild.spec import Place, Problem, spec_error
from colbuild.spec.text.problems import render


def test_a_problem_shows_its_line_with_a_caret_and_a_hint():
    place = Place("recipes/distill.yaml", 9, 3, "  temprature: 2.0", 10)
    assert render(Problem(place, "unknown key 'temprature' in 'loss'", "did you mean 'temperature'?")) == (
        "recipes/distill.yaml:9:3: unknown key 'temprature' in 'loss'\n"
        "  |\n"
        "9 |   temprature: 2.0\n"
        "  |   ^^^^^^^^^^\n"
        "  = did you mean 'temperature'?"
    )


def test_problems_are_sorted_by_place_and_told_once():
    def at(file, line, column):
        return Problem(Place(file, line, column), f"{file}{line}{column}", None)

    shuffled = [
        at("b", 1, 1),
        at("a", 10, 1),
        at("a", 9, 2),
        at("a", 9, 1),
        at("a", 10, 1),
        Problem(None, "first", None),
    ]
    error = spec_error(shuffled)
    assert isinstance(error, SpecError)
    title, *rest = error.message.split("\n\n")
    assert title == "5 problems in the spec"
    assert [text.rsplit(": ", 1)[-1] for text in rest] == ["first", "a91", "a92", "a101", "b11"]
    assert spec_error(shuffled[:1]).message.startswith("1 problem in the spec\n")


def test_the_caret_stands_below_wide_characters_and_tabs():
    source = "\t日本: x"
    text = render(Problem(Place("f", 1, 6, source, 1), "m", None))
    assert text.split("\n")[2:] == ["1 |  日本: x", "  |        ^"]


def test_long_lines_are_cut_around_the_place():
    source = "a" * 300 + "HERE" + "b" * 300
    _, _, shown, caret = render(Problem(Place("f", 12, 301, source, 4), "m", None)).split("\n")
    assert len(shown) < 120
    assert shown[caret.index("^") :].startswith("HERE")
    assert caret.count("^") == 4
    assert shown.startswith("12 | ...a")
    assert shown.endswith("b...")


def test_a_problem_without_place_or_source_is_still_told():
    assert render(Problem(None, "message", "hint")) == "message\n  = hint"
    assert render(Problem(Place("f", 1, 1), "message", None)) == "f:1:1: message"
