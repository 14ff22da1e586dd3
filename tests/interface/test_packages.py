"""Packages made, verified and asked from Python."""

from __future__ import annotations

import os

import pytest

import colbuild
from colbuild.units import format_bytes
from tests.helpers.project import ROOT, command
from tests.helpers.tiny import tiny_documents

PROFILE = ROOT / "exports/tiny-int8.yaml"


@pytest.fixture(scope="module")
def package(models, tmp_path_factory):
    folder = tmp_path_factory.mktemp("packages") / "new" / "phone"
    return colbuild.export(str(models / "small"), str(PROFILE), to=folder, heldout=tiny_documents(20), tokens="1k")


def test_a_package_says_what_it_is(package):
    assert repr(package) == f"<Package {package.folder}, int8, {format_bytes(package.size)}>"
    table = package._repr_html_()
    assert "<td>int8</td>" in table
    assert "perplexity" in table
    assert package.manifest.quality is not None
    assert os.fspath(package) == str(package.folder)
    assert [path.name for path in package.folder.parent.iterdir()] == ["phone"]


def test_a_package_is_verified(package):
    found = colbuild.verify(package)
    assert found.problems == ()
    assert found == colbuild.verify(str(package.folder))


def test_text_is_returned_or_streamed(package):
    asked = {"max_tokens": 6, "temperature": 1.0, "seed": 4, "chat": False}
    text = colbuild.generate(package, "Ada builds", **asked)
    pieces = colbuild.generate(package.folder.parent, "Ada builds", **asked, stream=True)
    assert isinstance(text, str)
    assert "".join(pieces) == text
    assert colbuild.generate(package, "Ada builds", **{**asked, "seed": 5}) != text


def test_importing_the_room_export_does_not_hide_the_function(package):
    import colbuild.export.manifest

    assert callable(colbuild.export)
    assert colbuild.export.__name__ == "export"


def test_every_word_in_a_table_is_escaped():
    from colbuild.report.html_table import html_facts, html_table

    assert "<b>" not in html_table("<b>", ["<b>"], [["<b>"]]) + html_facts("<b>", {"<b>": "<b>"})


WRONG = {
    "no profile": (lambda p, m: colbuild.export(m / "small", "nope.yaml", to="x"), "does not exist", ""),
    "a folder as profile": (lambda p, m: colbuild.export(m / "small", m, to="x"), "is a folder", ""),
    "a recipe": (lambda p, m: colbuild.export(m / "small", ROOT / "recipes/distill.yaml", to="x"), "a recipe", None),
    "no model": (lambda p, m: colbuild.export(m, PROFILE, to="x"), "no config.json", "GGUF"),
    "something there": (lambda p, m: colbuild.export(m / "small", PROFILE, to=p), "is there already", "remove"),
    "a model is no package": (lambda p, m: colbuild.generate(m / "small", "x"), "not a package", ""),
    "verify a model": (lambda p, m: colbuild.verify(m / "small"), "not a package", ""),
    "verify nothing": (lambda p, m: colbuild.verify(None), "not a path", "pathlib"),
    "a number as prompt": (lambda p, m: colbuild.generate(p, 3), "the prompt is not a text", "string"),
    "a long prompt": (lambda p, m: colbuild.generate(p, "x" * 5000), "takes 512", "shorten"),
    "text for a number": (lambda p, m: colbuild.generate(p, "x", max_tokens="many"), "max_tokens", "whole number"),
    "no tokens": (lambda p, m: colbuild.generate(p, "x", max_tokens=0), "max_tokens is 0", "from 1 on"),
    "hot": (lambda p, m: colbuild.generate(p, "x", temperature="hot"), "temperature is 'hot'", "from 0 on"),
    "boiling": (lambda p, m: colbuild.generate(p, "x", temperature=10**400), "temperature is 1000", "from 0 on"),
    "a million threads": (lambda p, m: colbuild.generate(p, "x", threads=10**6), "threads is 1,000,000", "at most"),
    "chat as text": (lambda p, m: colbuild.generate(p, "x", chat="no"), "chat is 'no'", "True or False"),
    "stream as text": (lambda p, m: colbuild.generate(p, "x", stream=1), "stream is 1", "True or False"),
    "a seed as text": (lambda p, m: colbuild.export(m / "small", PROFILE, to="x", seed="x"), "seed", "whole number"),
    "nothing held out": (
        lambda p, m: colbuild.export(m / "small", PROFILE, to="x", heldout=[]),
        "the held-out text is empty",
        "more than blanks",
    ),
    "a seed below 0": (lambda p, m: colbuild.generate(p, "x", seed=-1), "negative", "whole number"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_is_wrong_is_told_with_a_hint(case, package, models):
    call, message, hint = WRONG[case]
    with pytest.raises(colbuild.ColbuildError) as caught:
        call(package, models)
    assert message in caught.value.message
    assert hint is None or (caught.value.hint is not None and hint in caught.value.hint)


@pytest.mark.slow
def test_a_profile_that_is_fitted_and_recovered_needs_no_text(models, tmp_path):
    profile = tmp_path / "watch.yaml"
    profile.write_text(
        "precision: int4\nblock: 32\ncontext: 256\ncalibration: 256\nrecover: {tokens: 512, sequence: 64, batch: 2}\n"
    )
    made = colbuild.export(models / "small", profile, to=tmp_path / "watch", tokens=512)
    assert made.manifest.profile.precision == "int4"
    assert colbuild.verify(made).problems == ()


def test_the_command_refuses_an_infinite_temperature_too(package, monkeypatch, capsys):
    run = command(package.folder.parent, monkeypatch, capsys)
    ran = run("run", str(package.folder), "-p", "x", "--temperature", "inf")
    assert ran.code == 1
    assert "error: temperature is inf\nhint: give a number from 0 on" in ran.err
    assert "warning" not in ran.err
