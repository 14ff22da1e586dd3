"""A step that is asked to stop ends within moments at a boundary, whatever it does, and says so."""

from __future__ import annotations

import json
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from colbuild.errors import StoppedError
from colbuild.fetch.background import in_background
from colbuild.fetch.fetching import fetch
from colbuild.progress import Progress
from colbuild.store.locks import hold
from tests.helpers.steps import run_step
from tests.ops.bridges import TEXT, raw
from tests.ops.family import ansnet, between, distilled, ordered, packed, room, shape_of, smaller
from tests.ops.source.servers import Index
from tests.ops.test_quantise import PROFILE, params_of


def asked_after(count: int, op: str, inputs: dict[str, Path], params: dict[str, Any], output: Path) -> list[Progress]:
    """What a step reports that is asked to stop once it has reported so often."""
    told: list[Progress] = []
    output.mkdir(parents=True)
    with pytest.raises(StoppedError):
        run_step(op, inputs, json.loads(json.dumps(params)), output, told.append, stopping=lambda: len(told) >= count)
    return told


def steps() -> dict[str, tuple[str, dict[str, Path], dict[str, Any]]]:
    """Every kind of step that keeps nothing."""
    text = {"corpus": packed()}
    search = between("group_alpha")
    exported = {"model": smaller(), **text, "heldout": packed()}
    profile = {"profile": PROFILE, "versions": {}, "split": "train", "heldout_split": "heldout"}
    streamed = between("subset")
    return {
        "source": ("source", {"raw": ansnet()}, {}),
        "corpus": ("corpus", {"raw": raw(), "tokenizer": ansnet()}, TEXT),
        "tokenizer": ("tokenizer", {"model": ansnet(), "raw": raw()}, {"rows": 340, "train": True, **TEXT}),
        "order": ("order", {"model": ansnet(), **text}, {"tokens": 1024, "split": "train"}),
        "evaluate": (
            "evaluate",
            {"model": smaller(), "reference": ansnet(), **text},
            {"tokens": 10**6, "split": "heldout"},
        ),
        "interpolate": ("interpolate", *search),
        "interpolate, streamed": ("interpolate", *streamed),
        "align": (
            "align",
            {"model": smaller(), "teacher": ordered(), **text},
            {"shape": shape_of(smaller()), "align": "permute", "tokens": 1024, "split": "train"},
        ),
        "quantise": ("quantise", {"model": smaller(), **text}, params_of()),
        "export": ("export", exported, profile),
    }


NAMES = (
    "source",
    "corpus",
    "tokenizer",
    "order",
    "evaluate",
    "interpolate",
    "interpolate, streamed",
    "align",
    "quantise",
    "export",
)


@pytest.mark.parametrize("name", NAMES)
def test_a_step_stops_at_its_next_boundary(name: str, tmp_path: Path) -> None:
    op, inputs, params = steps()[name]
    assert len(asked_after(1, op, inputs, params, tmp_path / "at-once")) <= 2


def test_a_corpus_stops_between_texts_that_are_not_packed(tmp_path: Path) -> None:
    (tmp_path / "blank.txt").write_text("\f\n" * 100_000)
    inputs = {"raw": tmp_path / "blank.txt", "tokenizer": ansnet()}
    assert len(asked_after(1, "corpus", inputs, TEXT, tmp_path / "out")) == 1


def test_a_search_stops_within_a_candidate(tmp_path: Path) -> None:
    asked = 0

    def stopping() -> bool:
        nonlocal asked
        asked += 1
        return asked > 1

    inputs, params = between("group_alpha", tokens=4096)
    told: list[Progress] = []
    with pytest.raises(StoppedError):
        run_step("interpolate", inputs, json.loads(json.dumps(params)), tmp_path, told.append, stopping=stopping)
    assert told == []


def test_one_long_call_is_left_behind() -> None:
    let_go = threading.Event()
    started = time.monotonic()

    def look() -> None:
        raise StoppedError("stopped")

    with pytest.raises(StoppedError):
        in_background(lambda: let_go.wait(60), look)
    assert time.monotonic() - started < 10
    let_go.set()


def test_what_is_done_in_the_background_gives_its_result_or_its_error() -> None:
    assert in_background(lambda: 3, lambda: None) == 3
    with pytest.raises(ZeroDivisionError):
        in_background(lambda: 1 // 0, lambda: None)


def test_a_download_that_does_not_answer_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    index = Index("thing", {"thing-1.0.tar.gz": b"x"}, hang=threading.Event())
    with index.serve() as url:
        monkeypatch.setenv("PIP_INDEX_URL", url)
        monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
        started = time.monotonic()
        with pytest.raises(StoppedError, match=r"pypi://thing==1\.0/file"):
            fetch(
                "pypi://thing==1.0/file",
                root=tmp_path,
                downloads=tmp_path / "downloads",
                stopping=lambda: time.monotonic() - started > 0.3,
            )
        assert time.monotonic() - started < 5
        assert index.hang is not None
        index.hang.set()


def test_a_wait_for_somebody_elses_lock_is_left(tmp_path: Path) -> None:
    def check() -> None:
        raise StoppedError("stopped")

    with hold(tmp_path / "a.lock"), pytest.raises(StoppedError), hold(tmp_path / "a.lock", check=check):
        raise AssertionError("it was held twice")


def test_a_training_is_not_ended_by_what_it_reports() -> None:
    inputs, params = distilled(ordered(), layers=3, ffn=72)
    told: list[Progress] = []
    output = room() / "trained-and-stopped"
    output.mkdir()
    with pytest.raises(StoppedError, match="step"):
        run_step(
            "distill", inputs, json.loads(json.dumps(params)), output, told.append, stopping=lambda: len(told) >= 2
        )
