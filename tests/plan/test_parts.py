"""A step's key depends on the parts of a model that the step reads, and the step sees the files of these alone."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from colbuild.arch.files.model_files import LICENCES
from colbuild.plan.changes.former import former_records, translated
from colbuild.plan.changes.states import State
from colbuild.plan.drawing.keys import action_key
from colbuild.plan.drawing.parts import CARRIED, Parts, files_of, homes_of, part_of, parts_read
from colbuild.plan.operation import CHAT, TEXTS, TOKENIZER, WEIGHTS
from colbuild.plan.steps.operations import OPERATIONS
from colbuild.run.process.input_views import shown
from colbuild.store import ActionRecord, open_store
from colbuild.weights.files.checkpoint import COMPANIONS
from colbuild.weights.files.origin import ORIGIN
from tests.helpers.steps import set_epoch
from tests.plan.built import SOURCES, World, world
from tests.plan.families import graph

MODEL = {
    "config.json": b"{}",
    "model.safetensors": b"weights",
    "tokenizer.json": b"tokens",
    "tokenizer_config.json": b"{}",
    "chat_template.jinja": b"{{ messages }}",
    "generation_config.json": b"{}",
    "LICENSE": b"free",
    "training.json": b"{}",
}


def put(store, files) -> str:
    """The digest of a tree of these files."""
    with store.draft() as draft:
        for name, content in files.items():
            (draft / "files" / name).parent.mkdir(exist_ok=True)
            (draft / "files" / name).write_bytes(content)
        return store.publish(draft).digest


@pytest.fixture
def store(tmp_path):
    found = open_store(tmp_path / "store")
    found.prepare()
    return found


def digests(store, files) -> dict[str, str | None]:
    """Part -> digest."""
    digest, parts = put(store, files), Parts(store)
    return {part: parts.digest(digest, part) for part in (WEIGHTS, TOKENIZER, CHAT, TEXTS)}


@pytest.mark.parametrize(
    ("path", "part"),
    [
        ("config.json", WEIGHTS),
        ("model-00001-of-00002.safetensors", WEIGHTS),
        ("nested/config.json", WEIGHTS),
        ("something.new", WEIGHTS),
        ("tokenizer.json", TOKENIZER),
        ("beginning.json", TOKENIZER),
        ("chat_template.jinja", CHAT),
        ("additional_chat_templates/tool_use.jinja", CHAT),
        ("generation_config.json", TEXTS),
        ("LICENSE", TEXTS),
        ("training.json", None),
        ("nested/training.json", WEIGHTS),
    ],
)
def test_each_file_belongs_to_one_part_and_an_unknown_one_to_the_weights(path, part):
    assert part_of(path) == part


def test_all_that_models_carry_over_belongs_to_parts_of_their_home():
    assert {part_of(name) for name in (*COMPANIONS, ORIGIN, *LICENCES)} == set(CARRIED)


@pytest.mark.parametrize(
    ("name", "part"),
    [("model.safetensors", WEIGHTS), ("tokenizer.json", TOKENIZER), ("chat_template.jinja", CHAT), ("LICENSE", TEXTS)],
)
def test_a_changed_file_changes_the_digest_of_its_part_alone(store, name, part):
    before, after = digests(store, MODEL), digests(store, {**MODEL, name: b"changed"})
    assert {key for key in before if before[key] != after[key]} == {part}


def test_what_a_training_tells_changes_no_part(store):
    assert digests(store, MODEL) == digests(store, {**MODEL, "training.json": b"another loss"})


def test_a_step_sees_the_files_of_the_parts_it_reads_and_no_others(store):
    model, home = put(store, MODEL), put(store, {**MODEL, "tokenizer.json": b"the home's"})
    inputs = {"model.weights": model, "model.tokenizer": home, "reference.weights": model, "corpus": home}
    with shown(inputs, store) as paths:
        assert {path.name for path in paths["model"].iterdir()} == {
            "config.json",
            "model.safetensors",
            "tokenizer.json",
            "tokenizer_config.json",
        }
        assert (paths["model"] / "tokenizer.json").read_bytes() == b"the home's"
        assert {path.name for path in paths["reference"].iterdir()} == {"config.json", "model.safetensors"}
        assert paths["corpus"] == store.files(home)
        folder = paths["model"]
    assert not folder.exists()
    assert store.check_content(model) is None


def test_two_roles_that_read_the_same_have_one_folder(store):
    model = put(store, MODEL)
    with shown({"model.weights": model, "reference.weights": model}, store) as paths:
        assert paths["model"] == paths["reference"]


def test_every_model_of_a_family_has_one_home(tmp_path):
    steps = graph(tmp_path).steps
    homes = homes_of(steps)
    assert {homes[step.id] for step in steps if step.op in ("order", "distill", "interpolate", "recover")} == {
        "source ansnet"
    }
    by_id = {step.id: step for step in steps}
    assert set(by_id["distill a76"].reads) == {"teacher.weights", "corpus"}
    assert by_id["export phone/phone-int8"].reads["model.chat"].step == "source ansnet"
    assert by_id["export phone/phone-int8"].reads["model.weights"].step == "interpolate phone"


# -- reasons ----------------------------------------------------------------------------------------------------------


def test_a_changed_template_is_named_by_each_package_and_by_nothing_else(tmp_path):
    fam = world(tmp_path)
    records = fam.build()
    [source] = [step for step in fam.graph().steps if step.op == "source"]
    old = fam.store.files(records[source.id].output)
    files = {path.name: path.read_bytes() for path in old.iterdir()} | {"chat_template.jinja": b"another"}
    digest = put(fam.store, files)
    fam.store.record("fam", replace(records[source.id], output=digest))
    plans = fam.plan()
    changed = {step: plan.why for step, plan in plans.items() if plan.state is not State.CACHED}
    assert set(changed) == {step for step in plans if step.startswith("export ")}
    assert set(changed.values()) == {"the AnsNet's chat template changed"}


def test_a_changed_tokenizer_is_the_reason_of_the_corpora_and_the_packages(tmp_path):
    fam = world(tmp_path)
    records = fam.build()
    [source] = [step for step in fam.graph().steps if step.op == "source"]
    old = fam.store.files(records[source.id].output)
    files = {path.name: path.read_bytes() for path in old.iterdir()} | {"tokenizer.json": b"another"}
    fam.store.record("fam", replace(records[source.id], output=put(fam.store, files)))
    plans = fam.plan()
    assert plans["corpus train"].why == "the AnsNet's tokenizer changed"
    assert plans["order ansnet"].why == "only if the corpus changes"
    assert plans["export watch/phone-int8"].why == "the AnsNet's tokenizer changed"


# -- results of older versions ----------------------------------------------------------------------------------------


def former(fam: World) -> dict[str, ActionRecord]:
    """Builds every step as versions did whose keys named whole results, and whose models held all files of their family."""
    fam.store.prepare()
    fam.store.layout.translated.unlink(missing_ok=True)
    records: dict[str, ActionRecord] = {}
    for step in fam.graph().steps:
        inputs = {role: records[needed].output for role, needed in step.inputs.items()}
        inputs |= {role: SOURCES[uri] for role, uri in step.sources.items()}
        files = {name: content for name, content in MODEL.items() if step.op not in ("corpus", "evaluate", "export")}
        files["result"] = json.dumps([dict(step.params), inputs]).encode()
        key = action_key(step.op, step.params, inputs)
        size = sum(map(len, files.values()))
        record = ActionRecord(key, step.id, step.op, step.params, inputs, put(fam.store, files), size, 12.5, 1.7e9)
        fam.store.record("fam", record)
        records[step.id] = record
    return records


def test_results_of_a_version_whose_keys_named_whole_models_are_found_by_a_plan_and_kept_by_a_build(tmp_path):
    old = World(tmp_path, open_store(tmp_path / "store"))
    records = former(old)
    new = World(tmp_path, open_store(tmp_path / "store", former_records))
    plans = new.plan()
    assert {plan.state for plan in plans.values()} == {State.CACHED}
    assert {step: plan.output for step, plan in plans.items()} == {step: one.output for step, one in records.items()}
    assert not new.store.layout.translated.exists(), "a plan writes nothing"
    new.store.prepare()
    assert {plan.state for plan in old.plan().values()} == {State.CACHED}


def test_a_changed_template_after_the_update_trains_nothing(tmp_path):
    old = World(tmp_path, open_store(tmp_path / "store"))
    records = former(old)
    new = World(tmp_path, open_store(tmp_path / "store", former_records))
    look = {**SOURCES, "./ansnet": "b" * 64}
    source = new.graph().steps[0]
    inputs = {"raw": look["./ansnet"]}
    old_files = {path.name: path.read_bytes() for path in new.store.files(records[source.id].output).iterdir()}
    output = put(new.store, {**old_files, "chat_template.jinja": b"another"})
    key = action_key(source.op, source.params, inputs)
    new.store.record("fam", replace(records[source.id], key=key, inputs=inputs, output=output))
    plans = new.plan(look.get)
    waiting = {step for step, plan in plans.items() if plan.state is not State.CACHED}
    assert waiting == {step for step in plans if step.startswith("export ")}
    assert plans["export watch/phone-int8"].why == "the AnsNet's chat template changed"


def test_a_record_of_another_epoch_is_not_translated(tmp_path, monkeypatch):
    fam = World(tmp_path, open_store(tmp_path / "store"))
    records = former(fam)
    set_epoch(monkeypatch, "distill", OPERATIONS["distill"].epoch + 1)
    parts = Parts(fam.store)
    assert translated(records["distill a76"], parts) is None
    assert translated(records["order ansnet"], parts) is not None


def test_a_record_that_names_parts_already_is_left(tmp_path):
    fam = world(tmp_path)
    assert all(translated(record, Parts(fam.store)) is None for record in fam.build().values())


def test_the_parts_of_a_result_that_is_lost_are_not_known(store):
    assert Parts(store).digest("0" * 64, WEIGHTS) is None
    assert files_of((), WEIGHTS) == ()


@pytest.mark.parametrize(("precision", "parts"), [("int4", {WEIGHTS}), ("int4-mixed", {WEIGHTS, *CARRIED})])
def test_only_rounding_that_fills_a_package_depends_on_the_size_of_its_texts(precision, parts):
    assert set(parts_read("quantise", "model", {"profile": {"precision": precision}})) == parts
