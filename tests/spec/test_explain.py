"""`show --resolved` tells each value of the resolved family and the line that somebody wrote it in."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from colbuild.spec.project.origins import (
    path_text,
    resolved_lines,
    resolved_to_json,
    resolved_values,
    scalar_text,
    with_origins,
)
from colbuild.spec.text.nodes import plain
from colbuild.spec.text.yaml_text import read_yaml
from tests.helpers.golden import check_file
from tests.spec.projects import FAMILY, load


def origins(loaded):
    return {path_text(found.path): found.origin for found in resolved_values(loaded)}


def leaves(value):
    if isinstance(value, dict) and value:
        return sum(map(leaves, value.values()))
    if isinstance(value, list) and value and isinstance(value[0], dict):
        return sum(map(leaves, value))
    return 1


def test_each_value_has_the_line_that_decided_it(tmp_path):
    found = origins(load(tmp_path))
    assert found["name"] == "specs/family.yaml:2"
    assert found["data.train.limit"] == found["data.eval.limit"] == "specs/family.yaml:6"
    assert found["data.train.heldout"] == "default"
    # built-in < recipe < chain < anchor
    assert found["anchors[0].recipe.precision"] == "default"
    assert found["anchors[0].recipe.seed"] == "recipes/distill.yaml:2"
    assert found["anchors[0].recipe.loss.temperature"] == "recipes/distill.yaml:4"
    assert found["anchors[0].recipe.tokens"] == "specs/family.yaml:9"
    assert found["anchors[1].recipe.loss.temperature"] == found["anchors[1].recipe.tokens"] == "specs/family.yaml:12"
    assert found["anchors[1].recipe.loss.kd_weight"] == "recipes/distill.yaml:5"
    assert found["anchors[0].recipe.optimizer.betas"] == "recipes/distill.yaml:6"
    assert found["desnets[0].exports[0].block"] == "exports/phone-int8.yaml:2"
    assert found["desnets[0].exports[0].name"] == "specs/family.yaml:14"
    assert found["desnets[1].recover"] == found["desnets[1].exports"] == "default"


def test_a_written_null_is_no_default(tmp_path):
    text = FAMILY.replace("{source: ./corpus.jsonl, limit: 1MB}", "\n    source: ./corpus.jsonl\n    limit: null")
    assert origins(load(tmp_path, specs__family=text))["data.train.limit"] == "specs/family.yaml:8"


def test_no_value_is_left_out_and_none_told_twice(tmp_path):
    loaded = load(tmp_path)
    values = resolved_values(loaded)
    assert len({found.path for found in values}) == len(values) == leaves(loaded.family.model_dump(mode="json"))


def test_the_lines_are_yaml_of_the_resolved_family(tmp_path):
    loaded = load(tmp_path)
    text = "\n".join(f"{line}{comment}" for line, comment in with_origins(resolved_lines(loaded)))
    dumped = loaded.family.model_dump(mode="json")
    assert yaml.safe_load(text) == dumped
    read = read_yaml(text.encode(), "resolved.yaml")
    assert read.problems == ()
    assert json.loads(json.dumps(plain(read.root))) == dumped


def test_every_line_with_a_value_names_its_origin_in_one_column(tmp_path):
    lines = resolved_lines(load(tmp_path))
    assert all(line.text.endswith(":") for line in lines if line.origin is None)
    assert len({len(text) for text, comment in with_origins(lines) if comment}) == 1


def test_one_long_value_does_not_push_every_origin_away(tmp_path):
    loaded = load(tmp_path, specs__family=FAMILY.replace("./ansnet", f"./{'a' * 90}"))
    widths = {len(text) for text, comment in with_origins(resolved_lines(loaded)) if comment}
    assert len(widths) == 2
    assert min(widths) < 50


def test_the_whole_of_a_small_family(tmp_path):
    loaded = load(tmp_path)
    text = "\n".join(f"{line}{comment}" for line, comment in with_origins(resolved_lines(loaded))) + "\n"
    check_file(Path(__file__).parent / "golden/resolved.txt", text)


def test_json_has_path_value_file_and_line(tmp_path):
    found = {entry["path"]: entry for entry in resolved_to_json(load(tmp_path))}
    assert found["anchors[0].recipe.loss.temperature"] == {
        "path": "anchors[0].recipe.loss.temperature",
        "keys": ["anchors", 0, "recipe", "loss", "temperature"],
        "value": 2.0,
        "file": "recipes/distill.yaml",
        "line": 4,
    }
    assert found["anchors[0].recipe.precision"]["file"] is found["anchors[0].recipe.precision"]["line"] is None


@pytest.mark.parametrize("value", ["true", "no", "1.5", "1e3", "a: b", "a #b", "", " a", "ü", "null", "-", "~", "a:"])
def test_texts_that_yaml_would_read_as_something_else_are_quoted(value):
    assert yaml.safe_load(scalar_text(value)) == value


@given(st.text() | st.floats(allow_nan=False, allow_infinity=False) | st.integers() | st.booleans() | st.none())
def test_every_value_is_read_back_as_it_was(value):
    read = yaml.safe_load(scalar_text(value))
    assert read == value
    assert type(read) is type(value)
