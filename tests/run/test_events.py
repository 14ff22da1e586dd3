"""Events as JSON lines."""

from __future__ import annotations

import json
from typing import get_args

import pytest

from colbuild import events
from colbuild.events import event_to_json
from colbuild.progress import Progress

EXAMPLES = {
    "build_started": events.BuildStarted("smol", ("source ansnet", "order ansnet"), 1),
    "step_started": events.StepStarted("order ansnet", 1, 2),
    "step_progress": events.StepProgress("order ansnet", Progress(1, 2, "tokens", "measuring", {"loss": 3.5})),
    "step_cached": events.StepCached("source ansnet", "in the store"),
    "step_finished": events.StepFinished("order ansnet", 1.25, 1000, same=True, ledger={"tokens": 3}),
    "step_failed": events.StepFailed("order ansnet", "the loss is nan"),
    "source_progress": events.SourceProgress("hf://a/b@c", Progress(1, 0, "bytes")),
    "remote_lost": events.RemoteLost("memory://there does not answer"),
    "packaged": events.Packaged("phone", "phone-int8", "out/smol/phone/phone-int8", 40_000_000),
    "notice": events.Notice("waiting"),
    "build_finished": events.BuildFinished(1, 1, 2.5),
}


@pytest.mark.parametrize("name", EXAMPLES)
def test_event_names_itself_and_its_version_and_survives_json(name):
    event = EXAMPLES[name]
    value = event_to_json(event)
    assert value["event"] == name
    assert value["v"] == 1
    assert json.loads(json.dumps(value)) == {
        key: list(field) if isinstance(field, tuple) else field for key, field in value.items()
    }
    assert set(value) == {"event", "v", *event.__dataclass_fields__}


def test_every_kind_of_event_has_an_example_here():
    assert {type(event) for event in EXAMPLES.values()} == set(get_args(events.Event))


def test_progress_is_nested():
    assert event_to_json(EXAMPLES["step_progress"])["progress"] == {
        "done": 1, "total": 2, "unit": "tokens", "phase": "measuring", "metrics": {"loss": 3.5},
    }  # fmt: skip


@pytest.mark.parametrize("name", EXAMPLES)
def test_events_are_values(name):
    event = EXAMPLES[name]
    with pytest.raises(AttributeError):
        event.other = 1
    with pytest.raises(AttributeError):
        setattr(event, next(iter(event.__dataclass_fields__)), 1)
