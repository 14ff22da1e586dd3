from __future__ import annotations

import math

import pytest
import yaml as pyyaml

from colbuild.spec.text import yaml_text as yaml
from colbuild.spec.text.nodes import Fields, Items, Scalar, plain
from colbuild.spec.text.yaml_text import read_yaml


@pytest.fixture(params=["CSafeLoader", "SafeLoader"], autouse=True)
def parser(request, monkeypatch):
    """Both of PyYAML's parsers: the C one is optional."""
    if not hasattr(pyyaml, request.param):
        pytest.skip("PyYAML was built without libyaml")
    monkeypatch.setattr(yaml, "_LOADER", getattr(pyyaml, request.param))


def values(text):
    document = read_yaml(text.encode(), "f.yaml")
    assert document.problems == ()
    return plain(document.root)


def problem(text):
    raw = text if isinstance(text, bytes) else text.encode()
    found = read_yaml(raw, "f.yaml").problems
    assert len(found) == 1
    return found[0].place.line, found[0].place.column, found[0].message


def test_words_are_read_by_the_rules_of_yaml_1_2():
    assert values("a: [no, on, off, yes, y, 010, 1e-3, 12:30, 2024-01-01, 1_000, 0x1f, 0o17, ~, true, .5, -3]") == {
        "a": ("no", "on", "off", "yes", "y", 10, 0.001, "12:30", "2024-01-01", "1_000", 31, 15, None, True, 0.5, -3)
    }
    assert values("a: ['1', \"true\", !!str 2, ! 3]") == {"a": ("1", "true", "2", "3")}
    assert values("{.inf: .inf, x: -.inf}") == {".inf": math.inf, "x": -math.inf}


def test_keys_are_always_text():
    assert values("on: 1\ntrue: 2\n3: 4") == {"on": 1, "true": 2, "3": 4}


def test_values_and_keys_know_their_places():
    root = read_yaml(b"# c\na:\n  - b: 1\n    c: [x, 'yy']\n", "f.yaml").root
    assert isinstance(root, Fields)
    a = root.get("a")
    assert isinstance(a, Items)
    item = a.items[0]
    assert isinstance(item, Fields)
    inner = item.get("c")
    assert isinstance(inner, Items)
    last = inner.items[1]
    assert isinstance(last, Scalar)
    spots = [(p.line, p.column, p.length) for p in (root.entries["a"].key, item.place, inner.place, last.place)]
    assert spots == [(2, 1, 1), (3, 5, 1), (4, 8, 1), (4, 12, 4)]
    assert last.place.source == "    c: [x, 'yy']"


def test_columns_count_characters_not_bytes():
    root = read_yaml('ä: {"日本": x}'.encode(), "f.yaml").root
    assert isinstance(root, Fields)
    inner = root.get("ä")
    assert isinstance(inner, Fields)
    assert inner.entries["日本"].value.place.column == 11


def test_aliases_stand_for_their_anchors():
    assert values("a: &x {b: 1}\nc: *x\nd: [*x, *x]") == {"a": {"b": 1}, "c": {"b": 1}, "d": ({"b": 1}, {"b": 1})}


def test_a_byte_order_mark_and_windows_line_ends_are_read_over():
    assert values("\ufeffa: 1\r\nb: 2\r\n") == {"a": 1, "b": 2}


def test_a_billion_laughs_are_refused_quickly():
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 10)]
    line, _, message = problem("\n".join(lines))
    assert line == 5
    assert message == "the file holds more than 100,000 values, its aliases counted each time"


@pytest.mark.parametrize(
    ("text", "line", "column", "message"),
    [
        ("a: 1\nb: 2\na: 3", 3, 1, "'a' is given twice"),
        ("a:\n\tb: 1", 2, 1, "a tab is used to indent"),
        ("a: [1, 2\nb: 3\n", 1, 4, "this bracket is not closed, or a ',' is missing behind it"),
        ("a: {b: 1\n", 1, 4, "this bracket is not closed, or a ',' is missing behind it"),
        ('a: "x\nb: 1\n', 1, 4, "this quote is not closed"),
        ("a: b: c", 1, 5, "a ':' is not expected here"),
        ("a: @x", 1, 4, "a value cannot start with '@'"),
        ("a: %x", 1, 4, "a value cannot start with '%'"),
        ("a:\n  b: 1\n c: 2", 3, 2, "this line does not match the lines before it"),
        ("a: 1\nb\n", 2, 1, "a ':' is missing"),
        ("- a\nb: c", 2, 1, "this line does not match the lines before it"),
        ('a: "\\q"', 1, 5, "an unknown escape after '\\'"),
        ("a: *x", 1, 4, "there is no anchor '&x' before this"),
        ("a: &x [*x]", 1, 8, "there is no anchor '&x' before this"),
        ("a: 1\n---\nb: 2", 2, 1, "a second document starts here"),
        ("a: !!python/object:os.system x", 1, 4, "YAML tags are not supported"),
        ("a: !!python/tuple [1]", 1, 4, "YAML tags are not supported"),
        ("a: !e!x y", 1, 4, "YAML tags are not supported"),
        ("a: &x {b: 1}\nc: {<<: *x}", 2, 5, "merge keys ('<<') are not supported"),
        ("? [a]\n: b", 1, 3, "a key must be a single word"),
        ("{: b}", 1, 2, "a key or a value is missing before this"),
        ('"": b', 1, 1, "a key is missing before this ':'"),
        ("a: 1\n<<<<<<< HEAD\nb: 1\n=======\nb: 2\n>>>>>>> other\n", 2, 1, "a merge conflict is left in this file"),
        ("a: 1\nb: x\x01y\n", 2, 5, "the character U+0001 is not allowed in YAML"),
        (b"a: 1\nb: \xe9t\xe9\n", 2, 4, "the file is not UTF-8: byte 0xe9"),
        ("a: 1".encode("utf-16"), 1, 1, "the file is not UTF-8: byte 0xff"),
        ("[" * 900, 1, 42, "nested more than 40 levels deep"),
        (
            b" " * 1_000_001,
            1,
            1,
            "the file is too large to be a specification: 1,000,001 bytes; the limit is 1,000,000",
        ),
    ],
)
def test_each_mistake_is_located(text, line, column, message):
    assert problem(text) == (line, column, message)


@pytest.mark.parametrize("text", ["", "\n\n", "# only a comment\n", "---\n", "---\n...\n"])
def test_a_file_without_values_is_empty(text):
    document = read_yaml(text.encode(), "f.yaml")
    assert document.root is None
    assert document.problems == ()


def test_absurd_nesting_is_refused_by_either_parser():
    _, _, message = problem("[" * 100_000)
    assert "nested" in message


def test_every_duplicate_is_told():
    document = read_yaml(b"a: 1\na: 2\nb: {c: 1, c: 2}\n", "f.yaml")
    assert [(p.place.line, p.hint) for p in document.problems if p.place] == [
        (2, "keep one; the other is in line 1"),
        (3, "keep one; the other is in line 3"),
    ]
    assert plain(document.root or pytest.fail()) == {"a": 1, "b": {"c": 1}}
