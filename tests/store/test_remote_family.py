"""A whole family goes to a remote and comes from one, in the order of its steps."""

from __future__ import annotations

import pytest

from colbuild import load_family, make_plan, open_workspace
from colbuild.errors import BuildError
from colbuild.plan.changes.states import State
from colbuild.plan.drawing.keys import action_key
from colbuild.plan.drawing.parts import Parts
from colbuild.plan.family_plan import remote_url
from colbuild.plan.planning import plan_sources
from colbuild.progress import silent
from colbuild.run.sharing.sharing import Pulled, pull_family, push_family
from colbuild.store import ActionRecord
from colbuild.store.remote.remote_store import Pushed, action_path, object_path, open_remote
from tests.store.processes import fill
from tests.store.remotes import memory_remote, spoil


@pytest.fixture
def loaded(project):
    return load_family(project / "specs" / "tiny.yaml")


def planned(loaded, folder):
    workspace = open_workspace(loaded, folder)
    return make_plan(loaded, workspace), workspace


@pytest.fixture
def built(loaded, tmp_path):
    """The family as if it were built: each step's result is a word."""
    plan, workspace = planned(loaded, tmp_path / "built")
    sources, outputs, parts = plan_sources(plan, workspace), {}, Parts(workspace.store)
    for step in plan.graph.steps:
        inputs = parts.inputs(step, outputs.get)
        inputs |= {role: sources.digest(uri) for role, uri in step.sources.items()}
        content = step.id.encode()
        outputs[step.id] = fill(workspace.store, {"word": content})
        key = action_key(step.op, step.params, inputs)
        values = (step.params, inputs, outputs[step.id], len(content), 1.5, 1.7e9)
        workspace.store.record("tiny", ActionRecord(key, step.id, step.op, *values))
    return planned(loaded, tmp_path / "built")


def test_pulled_family_is_the_pushed_one(built, loaded, tmp_path):
    plan, workspace = built
    assert plan.pending == ()
    url, count = memory_remote(), len(plan.steps)
    size = sum(len(step.step.id) for step in plan.steps)
    assert push_family(plan, workspace, url, silent) == Pushed(objects=count, bytes=size, records=count)
    assert push_family(plan, workspace, url, silent) == Pushed(skipped=count)
    told = []
    fresh, other = planned(loaded, tmp_path / "other")
    assert pull_family(fresh, other, url, told.append) == Pulled(objects=count, bytes=size)
    assert told[-1].done == size
    after = make_plan(loaded, other)
    assert {step.state for step in after.steps} == {State.CACHED}
    assert [step.output for step in after.steps] == [step.output for step in plan.steps]
    assert pull_family(after, other, url, silent) == Pulled(skipped=count)


def test_pull_stops_where_a_record_is_missing_and_takes_the_rest(built, loaded, tmp_path):
    plan, workspace = built
    url = memory_remote()
    push_family(plan, workspace, url, silent)
    remote = open_remote(url)
    lost = next(step for step in plan.steps if step.step.op == "distill")
    remote.files.fs.rm_file(f"{remote.files.base}/{action_path(lost.key)}")
    fresh, other = planned(loaded, tmp_path / "other")
    pulled = pull_family(fresh, other, url, silent)
    assert pulled.missing[0] == lost.step.id
    assert pulled.objects + len(pulled.missing) == len(plan.steps)
    assert pulled.objects > 0
    for step in plan.graph.steps:
        if set(step.inputs.values()) & set(pulled.missing):
            assert step.id in pulled.missing


def test_rejected_result_is_named_and_the_rest_comes(built, loaded, tmp_path):
    plan, workspace = built
    url = memory_remote()
    push_family(plan, workspace, url, silent)
    last = plan.steps[-1]
    spoil(open_remote(url), f"{object_path(last.output)}/files/word", b"x" * len(last.step.id))
    fresh, other = planned(loaded, tmp_path / "other")
    pulled = pull_family(fresh, other, url, silent)
    assert pulled.missing == (last.step.id,)
    [said] = pulled.rejected
    assert said.startswith(f"{last.step.id}: {url}: ")
    assert pulled.objects == len(plan.steps) - 1


def test_empty_remote_has_nothing(loaded, tmp_path):
    fresh, other = planned(loaded, tmp_path / "other")
    pulled = pull_family(fresh, other, memory_remote(), silent)
    assert pulled.objects == 0
    assert set(pulled.missing) == {step.id for step in fresh.graph.steps}


def test_url_that_cannot_be_used_is_refused(built):
    with pytest.raises(BuildError, match="is unknown"):
        push_family(*built, "nonsense://x/y", silent)


def test_remote_is_the_option_s_or_the_environment_s(monkeypatch):
    monkeypatch.delenv("COLBUILD_REMOTE", raising=False)
    assert remote_url(None) is None
    assert remote_url("memory://a") == "memory://a"
    monkeypatch.setenv("COLBUILD_REMOTE", "memory://b")
    assert remote_url(None) == "memory://b"
    assert remote_url("memory://a") == "memory://a"
    assert remote_url("") is None, "an empty option turns the variable off"
    monkeypatch.setenv("COLBUILD_REMOTE", "")
    assert remote_url(None) is None
