"""Saved plans: the file's form, and what makes one stale, told where it was written."""

from __future__ import annotations

import json
from dataclasses import dataclass, field

import pytest

from colbuild.errors import EXIT_STALE_PLAN, BuildError, StalePlanError
from colbuild.plan.cost.estimate import estimate
from colbuild.plan.saved.plan_file import SavedPlan, plan_schema_text, read_plan, saved_plan, write_plan
from colbuild.plan.saved.stale import changes, require_current
from colbuild.plan.shapes.chain import resolve_chain
from tests.conftest import MACHINE
from tests.helpers.project import ROOT
from tests.helpers.steps import set_epoch
from tests.plan.built import SOURCES, World, finish, world
from tests.plan.families import ANCHORS, ANSNET, DESNETS, DISTILL, load
from tests.plan.test_estimate import one_after_the_other


@dataclass
class Saver:
    """Saves plans of one project."""

    place: World
    sources: dict[str, str] = field(default_factory=lambda: dict(SOURCES))

    def save(self, targets=(), **parts: str) -> SavedPlan:
        loaded = load(self.place.root / "project", **parts)
        chain = resolve_chain(loaded, ANSNET)
        graph = self.place.graph(**parts)
        steps = tuple(self.place.plan(self.sources.get, **parts).values())
        estimates = estimate(graph, steps, chain, self.place.store.records, lambda: MACHINE, one_after_the_other)
        return saved_plan(loaded, chain, graph, steps, estimates, targets=targets, source_digest=self.sources.get)

    def told(self, before: SavedPlan, targets=(), **parts: str) -> list[str]:
        now = self.save(targets, **parts)
        return list(changes(before, now, load(self.place.root / "project", **parts).places))


@pytest.fixture
def saver(tmp_path):
    return Saver(world(tmp_path))


@pytest.fixture
def built(saver):
    saver.place.build()
    return saver


# -- the file ---------------------------------------------------------------------------------------------------------


def test_committed_schema_is_current():
    path = ROOT / "docs/schema/plan.v1.json"
    assert path.read_text(encoding="utf-8") == plan_schema_text(), (
        "run: colbuild schema plan > docs/schema/plan.v1.json"
    )


def test_every_field_of_the_schema_is_explained():
    schema = json.loads(plan_schema_text())
    for part in (schema, *schema["$defs"].values()):
        assert part["description"]
        assert all("description" in value for value in part["properties"].values())
        assert set(part["required"]) == set(part["properties"])


def test_a_plan_survives_its_file(saver, tmp_path):
    plan = saver.save(("phone", "+watch"))
    write_plan(plan, tmp_path / "plan.json")
    assert read_plan(tmp_path / "plan.json") == plan
    value = json.loads((tmp_path / "plan.json").read_text(encoding="utf-8"))
    assert value["format"] == "colbuild.plan.v1"
    assert value["targets"] == ["phone", "+watch"]


def test_a_plan_of_an_older_colbuild_is_read(saver, tmp_path):
    value = saver.save().model_dump(mode="json")
    assert value["ansnet_reads"]["cheaper"] in ("chain", "direct", "equal")
    del value["instead"], value["ansnet_reads"]["cheaper"]
    (tmp_path / "plan.json").write_text(json.dumps(value))
    read = read_plan(tmp_path / "plan.json")
    assert (read.instead, read.ansnet_reads.cheaper) == (None, None)


def test_the_same_world_gives_the_same_bytes(saver, tmp_path):
    for name in ("one", "two"):
        write_plan(saver.save(), tmp_path / name)
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()


def test_fields_of_a_later_colbuild_are_ignored(saver, tmp_path):
    plan = saver.save()
    value = plan.model_dump(mode="json") | {"mood": "hopeful"}
    value["steps"][0]["colour"] = "green"
    (tmp_path / "plan.json").write_text(json.dumps(value))
    assert read_plan(tmp_path / "plan.json") == plan


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (None, "cannot be read"),
        ("{", "not JSON"),
        ("[]", "names no format"),
        ('{"format": "colbuild.plan.v9"}', "its format is 'colbuild.plan.v9'"),
        ('{"format": "colbuild.plan.v1"}', "damaged: family"),
        ("\xff", "not JSON"),
    ],
)
def test_what_is_no_plan_is_refused_in_words(tmp_path, content, told):
    path = tmp_path / "plan.json"
    if content is not None:
        path.write_bytes(content.encode("latin-1"))
    with pytest.raises(BuildError, match=told) as caught:
        read_plan(path)
    assert caught.value.hint is not None
    assert "plan -o" in caught.value.hint


def test_a_plan_that_cannot_be_written_says_so(saver, tmp_path):
    with pytest.raises(BuildError, match="cannot be saved"):
        write_plan(saver.save(), tmp_path / "nowhere" / "plan.json")


# -- staleness --------------------------------------------------------------------------------------------------------


def test_an_unchanged_world_keeps_a_plan_good(built):
    assert built.told(built.save()) == []
    assert built.told(built.save(("phone",)), ("phone",)) == []


def test_comments_and_layout_keep_a_plan_good(built):
    assert built.told(built.save(), distill=f"# warmer?\n\n{DISTILL}") == []


def test_another_checkpoint_interval_keeps_a_plan_good_and_every_step_in_the_store(built):
    before = built.save()
    parts = {"distill": f"{DISTILL}checkpoint_every: 1min\n", "extra": "defaults: {checkpoint_every: 2h}\n"}
    assert built.told(before, **parts) == []
    assert {step.state for step in built.save(**parts).steps} == {"cached"}


def test_a_changed_value_is_told_with_its_line(built):
    before = built.save()
    told = built.told(before, distill=DISTILL.replace("temperature: 1.0", "temperature: 2.0"))
    assert told == [
        "anchors[a100].recipe.loss.temperature 1.0 -> 2.0  recipes/distill.yaml:3",
        "anchors[a76].recipe.loss.temperature 1.0 -> 2.0  recipes/distill.yaml:3",
    ]


def test_a_value_that_changes_no_step_makes_a_plan_stale_all_the_same(built):
    told = built.told(built.save(), extra="", anchors=ANCHORS + "    - {name: a40, params: 40M}\n")
    assert told == ["anchors[a40] is new  specs/family.yaml:12"]


def test_added_removed_and_reordered_desnets_are_told_by_name(built):
    lines = DESNETS.splitlines(keepends=True)
    [gone] = built.told(built.save(), desnets="".join(lines[:2]))
    assert gone.startswith("desnets[watch] is gone  specs/family.yaml:")
    [order] = built.told(built.save(), desnets="".join(reversed(lines)))
    assert order.startswith("desnets have another order")
    [new] = built.told(built.save(), desnets="  - {name: tag, params: 80M}\n" + DESNETS)
    assert new == "desnets[tag] is new  specs/family.yaml:13"


def test_other_targets_and_another_file_are_told(built):
    [told] = built.told(built.save(("phone",)))
    assert told == "its targets are phone, not the whole family"
    before = built.save()
    other = before.model_copy(update={"spec": before.spec.model_copy(update={"path": "specs/other.yaml"})})
    assert "it is a plan of specs/other.yaml, not of specs/family.yaml" in built.told(other)


def test_a_changed_source_is_told(built):
    before = built.save()
    built.sources["./corpus.txt"] = "d" * 64
    assert built.told(before) == ["source ./corpus.txt: sha256:cccccccccccc… -> sha256:dddddddddddd…"]
    del built.sources["./corpus.txt"]
    assert built.told(before) == ["source ./corpus.txt: sha256:cccccccccccc… -> not fetched"]


def test_another_epoch_and_another_library_are_told(built, monkeypatch):
    before = built.save()
    set_epoch(monkeypatch, "distill", 9)
    told = built.told(before)
    assert told[0] == "this version of colbuild does 'distill' differently (epoch 3 -> 9)"
    monkeypatch.undo()
    older = before.model_copy(update={"versions": {**before.versions, "torch": "2.5.0"}})
    assert built.told(older) == ["torch 2.5.0 -> 2.6.0, which exported graphs depend on"]


def test_what_came_into_the_store_is_told(saver):
    before = saver.save()
    source = saver.place.graph().steps[0]
    saver.place.store.prepare()
    finish(saver.place.store, "fam", source, {"raw": SOURCES["./ansnet"]}, b"the AnsNet")
    assert saver.told(before) == [f"store: {source.id} was planned to run, and is in the store now"]


def test_what_left_the_store_is_told(built):
    before = built.save()
    store = built.place.store
    record = store.last("fam", "distill a76")
    store.layout.action(record.key).unlink()
    assert built.told(before) == ["store: distill a76 was in the store, and is not now"]


def test_a_difference_without_a_known_cause_is_told_too(built):
    before = built.save()
    steps = tuple(step.model_copy(update={"key": "0" * 64}) for step in before.steps[:1]) + before.steps[1:]
    assert built.told(before.model_copy(update={"steps": steps})) == ["source ansnet differs"]


def test_a_shape_that_is_solved_differently_is_told(built):
    before = built.save()
    phone = next(model for model in before.models if model.name == "phone")
    other = phone.model_copy(update={"shape": {**phone.shape, "layers": 3}})
    models = tuple(other if model == phone else model for model in before.models)
    steps = tuple(
        step.model_copy(update={"key": "0" * 64}) if step.id == "interpolate phone" else step for step in before.steps
    )
    told = built.told(before.model_copy(update={"models": models, "steps": steps}))
    assert told == [
        f"phone has another shape: layers 3 -> {phone.shape['layers']}",
        "interpolate phone differs",
    ]


def test_a_stale_plan_is_refused_with_its_own_exit_code_and_few_lines(built):
    before = built.save()
    parts = {"desnets": "".join(f"  - {{name: d{n}, params: {77 + n}M}}\n" for n in range(20))}
    now = built.save(**parts)
    with pytest.raises(StalePlanError) as caught:
        require_current(before, now, load(built.place.root / "project", **parts).places)
    assert caught.value.exit_code == EXIT_STALE_PLAN
    lines = caught.value.message.splitlines()
    assert lines[0] == "the saved plan of fam is out of date:"
    assert lines[-1] == "  and 11 more"
    assert len(lines) == 14
