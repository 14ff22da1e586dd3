"""Hints: sentences that join well, and commands that name the spec they are about."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from colbuild.errors import EXIT_SPEC_ERROR, BuildError, SourceUnavailableError
from colbuild.report.screen.naming import DEFAULT_SPEC, named_spec, naming
from tests.helpers.project import replace_in

SPEC = "specs/tiny.yaml"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("pin it with 'colbuild lock'", "pin it with 'colbuild lock specs/tiny.yaml'"),
        ("'colbuild build --keep-going' builds it", "'colbuild build specs/tiny.yaml --keep-going' builds it"),
        (
            "see 'colbuild plan' and 'colbuild graph'",
            "see 'colbuild plan specs/tiny.yaml' and 'colbuild graph specs/tiny.yaml'",
        ),
        ("'colbuild build --plan out.json' builds this", "'colbuild build --plan out.json' builds this"),
        ("see 'colbuild cache verify'", "see 'colbuild cache verify'"),
    ],
)
def test_a_command_in_a_hint_names_the_spec(text, told):
    assert naming(text, Path(SPEC)) == told
    assert naming(text, Path(os.path.abspath(SPEC))) == told  # noqa: PTH100
    assert naming(text, DEFAULT_SPEC) == naming(text, None) == text


def test_a_path_with_a_space_can_be_pasted():
    assert naming("'colbuild lock'", Path("my specs/a.yaml")) == "'colbuild lock \"my specs/a.yaml\"'"


def test_the_spec_is_what_a_command_was_given():
    assert named_spec(["plan", SPEC, "--json"]) == Path(SPEC)
    assert named_spec(["plan"]) is None
    assert named_spec(["plan", SPEC, "specs/family.yaml"]) is None, "no hint is about two specs"


def test_errors_and_tables_name_the_spec(project, colbuild):
    ran = colbuild("plan", SPEC, "--locked")
    assert ran.code == EXIT_SPEC_ERROR
    assert f"write it with 'colbuild lock {SPEC}'" in ran.err
    assert f"'colbuild plan {SPEC}' shows the rest, 'colbuild build {SPEC}' builds it" in colbuild("status", SPEC).out
    assert colbuild("lock", SPEC).code == 0
    replace_in(project / SPEC, "{name: middle, params: 270k", "{name: middle, params: 280k")
    assert f"update it with 'colbuild lock {SPEC}'" in colbuild("plan", SPEC, "--locked").err


@pytest.mark.parametrize("kind", [BuildError, SourceUnavailableError])
def test_no_message_and_no_hint_ends_a_sentence_that_may_go_on(kind):
    error = kind("The file is cut off.", hint="Fetch it again.\n")
    assert f"{error.message}; {error.hint}; and so on" == "The file is cut off; Fetch it again; and so on"
    assert str(error) == "The file is cut off\nhint: Fetch it again"
    assert str(kind("no hint.")) == "no hint"
    assert kind("and more...").message == "and more..."
    assert kind("no hint").hint is None


def test_a_command_prints_message_and_hint_once(colbuild):
    ran = colbuild("plan", "specs/nope.yaml")
    assert ran.err.count("there is no file specs/nope.yaml") == 1
    assert ran.err.count("hint:") == 1
