from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest

from colbuild.spec import load_family
from colbuild.spec.model.written import FamilyFile, ProfileFile, RecipeFile
from colbuild.spec.project.schema import DIALECT, SCHEMAS, schema_text
from colbuild.spec.text.check import check
from colbuild.spec.text.yaml_text import read_yaml

ROOT = Path(__file__).parents[2]
COMMITTED = {"specs": FamilyFile, "recipes": RecipeFile, "exports": ProfileFile}
SCHEMA_OF = {"specs": "family", "recipes": "recipe", "exports": "profile"}
FILES = sorted(path for folder in COMMITTED for path in (ROOT / folder).glob("*.yaml"))


@pytest.mark.parametrize("name", SCHEMAS)
def test_the_committed_schema_is_current(name):
    path = ROOT / f"docs/schema/{name}.v1.json"
    assert path.read_text() == schema_text(name), f"run: colbuild schema {name} > docs/schema/{name}.v1.json"


@pytest.mark.parametrize("name", SCHEMAS)
def test_a_schema_is_closed_and_explains_every_key(name):
    schema = json.loads(schema_text(name))
    assert schema["$schema"] == DIALECT
    for part in (schema, *schema["$defs"].values()):
        assert part["additionalProperties"] is False
        assert part["description"]
        for key, value in part["properties"].items():
            described = "description" in value or any("description" in choice for choice in value.get("anyOf", []))
            assert described or "$ref" in value, key


def test_texts_with_units_have_a_pattern():
    tokens = json.loads(schema_text("recipe"))["properties"]["tokens"]
    number, text = tokens["anyOf"]
    assert number["type"] == "integer"
    assert re.search(text["pattern"], "100M")
    assert not re.search(text["pattern"], "100m")


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_committed_files_follow_their_form_and_name_their_schema(path):
    document = read_yaml(path.read_bytes(), path.name)
    assert document.problems == ()
    assert document.root is not None
    folder = path.parent.name
    assert check(COMMITTED[folder], document.root)[1] == []
    first = path.read_text().split("\n", 1)[0]
    assert first == f"# yaml-language-server: $schema=../docs/schema/{SCHEMA_OF[folder]}.v1.json"


def test_every_committed_recipe_and_profile_loads(tmp_path):
    for folder in ("recipes", "exports"):
        shutil.copytree(ROOT / folder, tmp_path / folder)
    recipes = [path.name for path in FILES if path.parent.name == "recipes"]
    profiles = [path.stem for path in FILES if path.parent.name == "exports"]
    anchors = "".join(
        f"    - {{name: a{n}, params: {9 - n}M, recipe: recipes/{name}}}\n" for n, name in enumerate(recipes)
    )
    (tmp_path / "family.yaml").write_text(
        "apiVersion: colbuild/v1\nname: all\nansnet: {source: ./x}\ndata: {train: {source: ./y}}\n"
        f"chain:\n  anchors:\n{anchors}desnets:\n  - {{name: d, params: 5M, exports: [{', '.join(profiles)}]}}\n"
    )
    loaded = load_family(tmp_path / "family.yaml").family
    assert len(loaded.anchors) == len(recipes)
    assert [profile.name for profile in loaded.desnets[0].exports] == profiles


def test_the_default_family_loads():
    loaded = load_family(ROOT / "specs/family.yaml")
    assert loaded.family.name == "smol-edge"
    assert loaded.root == ROOT
    assert [desnet.name for desnet in loaded.family.desnets] == ["tablet", "phone", "kiosk", "watch"]
    assert all(desnet.exports for desnet in loaded.family.desnets)


def test_the_documented_family_is_valid():
    block = re.search(r"```yaml\n(apiVersion.*?)```", (ROOT / "docs/spec.md").read_text(encoding="utf-8"), re.DOTALL)
    assert block is not None
    document = read_yaml(block[1].encode(), "docs/spec.md")
    assert document.root is not None
    assert check(FamilyFile, document.root)[1] == []
