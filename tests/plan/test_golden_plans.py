"""The plan of a family with 3 anchors and 5 DesNets, as people read it, in five situations."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

import colbuild as api
from colbuild.errors import EXIT_SPEC_ERROR
from colbuild.hashing import canonical_json
from colbuild.plan.lock.locked_sources import sources_of
from colbuild.store import ActionRecord
from tests.helpers.configs import SMOLLM2
from tests.helpers.golden import check_file
from tests.helpers.project import Ran, command, replace_in
from tests.plan.built import finish, inputs_of
from tests.plan.families import project

GOLDEN = Path(__file__).parent / "golden"
SPEC = "specs/family.yaml"
ANCHORS = """\
    - {name: a100, params: 103M}
    - {name: a76, params: 76M}
    - {name: a50, params: 50M}
"""
DESNETS = """\
  - {name: phone, params: 88M, exports: [phone-int8]}
  - {name: kiosk, shape: {layers: 22, ffn: 1152}, recover: {recipe: recipes/recover.yaml}, exports: [gateway]}
  - {name: tablet, params: 60M, exports: [phone-int8, gateway]}
  - {name: watch, params: 76M, exports: [phone-int8]}
  - {name: band, params: 55M, exports: [phone-int8]}
"""
DATA = "  train: {source: ./corpus.txt, limit: 8MB}\n"


@pytest.fixture
def family(tmp_path: Path) -> Path:
    """A project whose AnsNet is a configuration only, which is all that planning reads."""
    root = tmp_path / "family"
    project(root, anchors=ANCHORS, desnets=DESNETS, data=DATA, ansnet="{source: ./ansnet, exports: [phone-int8]}")
    (root / "ansnet").mkdir()
    (root / "ansnet" / "config.json").write_text(json.dumps(SMOLLM2))
    (root / "corpus.txt").write_text("A lamp by the sea.\n" * 500_000)
    return root


@pytest.fixture
def plan(family: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[[], Ran]:
    """Runs `colbuild plan` in the project."""
    colbuild = command(family, monkeypatch, capsys)
    return lambda: colbuild("plan", SPEC)


def fill(root: Path, *, until: str | None = None) -> None:
    """Brings the results of every step, or of those before one, into the store, as small files."""
    loaded = api.load_family(root / SPEC)
    workspace = api.open_workspace(loaded)
    workspace.store.prepare()
    planned = api.make_plan(loaded, workspace)
    sources = sources_of(loaded, workspace.store)
    records: dict[str, ActionRecord] = {}
    for index, step in enumerate(planned.graph.steps):
        if step.id == until:
            return
        inputs = inputs_of(workspace.store, step, records)
        inputs |= {role: sources.digest(uri) or "" for role, uri in step.sources.items()}
        content = canonical_json([dict(step.params), inputs])
        records[step.id] = finish(workspace.store, loaded.family.name, step, inputs, content, built_at=1.7e9 + index)


def test_fresh_family(plan):
    check_file(GOLDEN / "fresh.txt", plan().out)


def test_half_built_family(family, plan):
    fill(family, until="distill a76")
    check_file(GOLDEN / "half-built.txt", plan().out)


def test_one_recipe_value_changed(family, plan):
    fill(family)
    replace_in(family / "recipes" / "distill.yaml", "temperature: 1.0", "temperature: 2.0")
    check_file(GOLDEN / "recipe-changed.txt", plan().out)


def test_one_desnet_added(family, plan):
    fill(family)
    replace_in(
        family / SPEC, "  - {name: watch", "  - {name: ring, params: 52M, exports: [phone-int8]}\n  - {name: watch"
    )
    check_file(GOLDEN / "desnet-added.txt", plan().out)


def test_nothing_to_do(family, plan):
    fill(family)
    check_file(GOLDEN / "nothing.txt", plan().out)


def test_a_sequence_beyond_the_ansnets_positions_is_a_spec_error_of_the_plan(family, plan):
    config = family / "ansnet" / "config.json"
    config.write_text(json.dumps({**SMOLLM2, "max_position_embeddings": 200}))
    ran = plan()
    assert ran.code == EXIT_SPEC_ERROR
    assert "recipes/distill.yaml:1:11: 'sequence' is 256 tokens: the AnsNet has 200 positions" in ran.err
    assert "at most sequence: 200" in ran.err


@pytest.mark.parametrize("form", ["anchor", "segment"])
def test_the_plan_says_which_anchors_train_sub_shapes_and_why_others_do_not(family, plan, form):
    replace_in(family / "recipes" / "distill.yaml", "sequence: 256", f"sequence: 256\nelastic: {{form: {form}}}")
    check_file(GOLDEN / f"elastic-{form}.txt", plan().out)


def test_the_plan_shows_whose_lessons_are_written_down(family, plan):
    replace_in(family / "recipes" / "distill.yaml", "sequence: 256", "sequence: 256\nteacher: cached")
    check_file(GOLDEN / "cached.txt", plan().out)


def test_the_plan_says_how_much_of_their_text_anchors_write(family, plan):
    replace_in(family / "recipes" / "distill.yaml", "sequence: 256", "sequence: 256\non_policy: {share: 0.25}")
    told = [line for line in plan().out.splitlines() if "distilled from" in line]
    assert [line.endswith(", on policy: writes 25% of its text") for line in told] == [True] * 3
