"""A chat template in tokenizer_config.json becomes a file of its own, and stays the template that is used."""

from __future__ import annotations

import json

import pytest

from colbuild.export.runtime.chat_template import read_template
from colbuild.ops.source.chat import separate_chat


def folder(path, template):
    """A model folder with a template in its settings."""
    path.mkdir(parents=True, exist_ok=True)
    settings = {"bos_token": "<s>", "chat_template": template}
    (path / "tokenizer_config.json").write_text(json.dumps(settings), encoding="utf-8")
    return path


def settings_of(path):
    return json.loads((path / "tokenizer_config.json").read_text(encoding="utf-8"))


def files_of(path):
    return {one.relative_to(path).as_posix(): one.read_text(encoding="utf-8") for one in path.rglob("*.jinja")}


@pytest.mark.parametrize(
    ("template", "files"),
    [
        ("{{ messages }}\n ", {"chat_template.jinja": "{{ messages }}\n "}),
        (
            [{"name": "default", "template": "ä"}, {"name": "tool_use", "template": "b"}],
            {"chat_template.jinja": "ä", "additional_chat_templates/tool_use.jinja": "b"},
        ),
        ({"default": "a", "rag": "b"}, {"chat_template.jinja": "a", "additional_chat_templates/rag.jinja": "b"}),
    ],
)
def test_templates_move_to_files_and_the_same_one_is_used(tmp_path, template, files):
    place = folder(tmp_path, template)
    before = read_template(place).source
    separate_chat(place)
    assert files_of(place) == files
    assert settings_of(place) == {"bos_token": "<s>"}
    assert read_template(place).source == before


def test_a_file_that_is_there_counts_and_the_settings_lose_theirs(tmp_path):
    place = folder(tmp_path, "old")
    (place / "chat_template.jinja").write_text("new", encoding="utf-8")
    separate_chat(place)
    assert files_of(place) == {"chat_template.jinja": "new"}
    assert "chat_template" not in settings_of(place)


@pytest.mark.parametrize(
    "template",
    [
        [{"name": "../../escaped", "template": "a"}],
        [{"name": ".hidden", "template": "a"}],
        {"a/b": "c"},
        [{"template": "a"}],
        [1],
        7,
        [{"name": "default", "template": None}],
    ],
)
def test_what_no_file_can_hold_stays_in_the_settings(tmp_path, template):
    place = folder(tmp_path / "model", template)
    before = (place / "tokenizer_config.json").read_bytes()
    separate_chat(place)
    assert (place / "tokenizer_config.json").read_bytes() == before
    assert [one.name for one in tmp_path.rglob("*") if one.is_file()] == ["tokenizer_config.json"]
