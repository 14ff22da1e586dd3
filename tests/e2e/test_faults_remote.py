"""Fault 5 on a whole family: a shared cache that has everything, lies, or is not there."""

from __future__ import annotations

import json
import shutil

import pytest

from tests.e2e.builds import STEPS, assert_sound, faults_project, made, printed, started


@pytest.fixture(scope="module")
def shared(builder, good, tmp_path_factory, tiny_inputs):
    """A remote cache that a build has filled, with the good family."""
    folder = tmp_path_factory.mktemp("shared")
    project = faults_project(folder / "project", tiny_inputs)
    ended = builder.build(project, "--json", "--remote", f"file://{folder}/cache", "--push")
    assert ended.code == 0, ended.err
    assert made(project) == good.made
    return folder / "cache"


def fetched(events):
    """The steps that came from the remote cache."""
    return [event["step"] for event in events if event["event"] == "step_cached" and "remote" in event["why"]]


@pytest.mark.slow
def test_family_comes_from_the_remote_cache_and_nothing_runs(builder, good, shared, tmp_path, tiny_inputs, count):
    project = faults_project(tmp_path / "project", tiny_inputs)
    ended = builder.build(project, "--json", "--remote", f"file://{shared}")
    assert ended.code == 0, ended.err
    events = printed(ended.out)
    assert started(events) == []
    assert len(fetched(events)) == STEPS
    assert made(project) == good.made
    assert_sound(project / ".colbuild")
    count(steps_fetched=STEPS, steps_run=0)


@pytest.mark.slow
def test_what_the_remote_cache_lies_about_is_built_here_and_the_rest_is_fetched(
    builder, good, shared, tmp_path, tiny_inputs, count
):
    lying = shutil.copytree(shared, tmp_path / "lying")
    lies = {
        "distill large": ("model.safetensors", lambda content: content[:-1] + bytes([content[-1] ^ 1])),
        "interpolate middle": ("config.json", lambda content: content[: len(content) // 2]),
        "evaluate small": ("metrics.json", lambda content: content + b" "),
    }
    for step, (name, change) in lies.items():
        [path] = lying.glob(f"**/{good.made.steps[step]}/files/{name}")
        path.chmod(0o644)
        path.write_bytes(change(path.read_bytes()))
    project = faults_project(tmp_path / "project", tiny_inputs)
    ended = builder.build(project, "--json", "--remote", f"file://{lying}")
    assert ended.code == 0, ended.err
    events = printed(ended.out)
    assert started(events) == list(lies)
    assert len(fetched(events)) == STEPS - len(lies)
    notices = [event["message"] for event in events if event["event"] == "notice"]
    for step in lies:
        assert any(notice.startswith(f"{step}: ") and "building it here" in notice for notice in notices), notices
    assert made(project) == good.made
    assert_sound(project / ".colbuild")
    count(lies=len(lies), steps_built_here=len(lies), steps_fetched=STEPS - len(lies), wrong_bytes_in_out=0)


@pytest.mark.slow
def test_build_goes_on_without_a_remote_cache_that_cannot_be_reached(builder, good, tmp_path, tiny_inputs, count):
    project = faults_project(tmp_path / "project", tiny_inputs)
    # Nobody listens at this port.
    ended = builder.build(project, "--json", "--remote", "http://127.0.0.1:1/cache")
    assert ended.code == 0, ended.err
    events = printed(ended.out)
    lost = [event for event in events if event["event"] == "remote_lost"]
    assert len(lost) == 1, "it is told once"
    assert len(started(events)) == STEPS
    assert made(project) == good.made
    count(steps_built_here=STEPS, told=len(lost))


@pytest.mark.slow
def test_build_goes_on_when_the_remote_cache_breaks_on_the_way(builder, good, shared, tmp_path, tiny_inputs, count):
    """It is there when the build begins; then what it has of one step turns out to be a folder where a file should be."""
    broken = shutil.copytree(shared, tmp_path / "broken")
    records = [path for path in broken.rglob("*.json") if path.parent.parent.name == "actions"]
    of_step = {json.loads(path.read_bytes())["step"]: path for path in records}
    path = of_step["distill small"]
    path.unlink()
    path.mkdir()
    project = faults_project(tmp_path / "project", tiny_inputs)
    ended = builder.build(project, "--json", "--remote", f"file://{broken}")
    assert ended.code == 0, ended.err
    events = printed(ended.out)
    assert "distill small" in started(events)
    assert made(project) == good.made
    assert_sound(project / ".colbuild")
    count(steps_fetched=len(fetched(events)), steps_built_here=len(started(events)))
