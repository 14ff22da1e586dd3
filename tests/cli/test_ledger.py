"""What is told of a training: when it ends, and when one asks how the family stands."""

from __future__ import annotations

import io
import json
from dataclasses import asdict, replace
from pathlib import Path

import pytest
from rich.console import Console

from colbuild.events import StepFinished
from colbuild.report.screen.ledger_view import print_trainings, told_ledger
from colbuild.report.screen.live import plain_listener
from colbuild.run.process.circumstances import MADE_WITH
from colbuild.train.watching.ledger import Ledger
from tests.helpers.golden import check_file
from tests.helpers.steps import carry_out_instead

SPEC = "specs/tiny.yaml"
GOLDEN = Path(__file__).parent / "golden"
LEDGER = Ledger(
    tokens=4096,
    teacher_flops=5_000_000_000,
    student_flops=7_300_000_000,
    seconds=71.6,
    tokens_per_second=702.1,
    mfu=None,
    peak_memory=5_200_000_000,
    device="cpu",
    final_loss=3.5,
    heldout_loss=3.6,
    kl_to_teacher=0.3104,
)


def write_instead(run, params):
    """An operation that learns nothing, and notes what a training does."""
    (run.output / "told").write_text(run.output.parent.name)
    metrics = {"bits_per_byte": 2.5, "perplexity": 9.0, "top1_agreement": 0.5, "kl": 0.4567}
    (run.output / "metrics.json").write_text(json.dumps(metrics))
    if "recipe" in params:
        run.note(asdict(LEDGER))


@pytest.fixture
def quick(monkeypatch, colbuild, steps_run_here):
    carry_out_instead(monkeypatch, write_instead)
    return colbuild


def test_a_training_is_told_in_a_few_words():
    assert told_ledger(asdict(LEDGER)) == "702 tokens/s, 5.2 GB of memory, KL 0.310 to its teacher"
    on_a_gpu = replace(LEDGER, mfu=0.4136, kl_to_teacher=None)
    assert told_ledger(asdict(on_a_gpu)) == "702 tokens/s, 5.2 GB of memory, MFU 41%"
    assert told_ledger({}) == told_ledger({"bytes": 3}) == ""


def test_a_start_that_was_kept_is_told():
    harmed = replace(LEDGER, heldout_loss=3.95, given_up=7.84)
    assert told_ledger(asdict(harmed)).endswith("KL 0.310 to its teacher, its initial weights were kept")
    # What an older colbuild noted has no such figure.
    assert told_ledger({key: value for key, value in asdict(LEDGER).items() if key != "given_up"})


def test_status_says_which_trainings_did_harm(quick, monkeypatch):
    monkeypatch.setattr("tests.cli.test_ledger.LEDGER", replace(LEDGER, heldout_loss=3.95, given_up=7.84))
    quick("build", SPEC)
    text = " ".join(quick("status", SPEC).out.split())
    wanted = "worse on held-out text, 3.950 to 7.840 nats per token: its initial weights are kept"
    assert f"large: WARNING: the training made the model {wanted}" in text


def test_the_end_of_a_training_tells_its_ledger():
    stream = io.StringIO()
    console = Console(file=stream, width=200)
    plain_listener(console)(StepFinished("distill a76", 72.0, 200_000_000, same=True, ledger=asdict(LEDGER)))
    assert stream.getvalue() == (
        "  distill a76: done in 1 min 12 s, 200.0 MB, 702 tokens/s, 5.2 GB of memory, KL 0.310 to its teacher, same result "
        "as before; nothing after it runs for this reason\n"
    )


def test_events_for_machines_carry_the_ledger(quick):
    lines = [json.loads(line) for line in quick("build", SPEC, "--json").out.splitlines()]
    ledgers = {line["step"]: line["ledger"] for line in lines if line["event"] == "step_finished"}
    made_with = {name: ledger.pop(MADE_WITH) for name, ledger in ledgers.items()}
    assert ledgers["distill large"] == ledgers["recover shaped"] == asdict(LEDGER)
    assert ledgers["order ansnet"] == {}
    assert made_with["order ansnet"]["threads"] >= 1


def test_status_tells_how_each_trained_model_stands_to_its_teacher_and_to_the_ansnet(quick):
    assert "5.2 GB of memory" in quick("build", SPEC).out
    text = quick("status", SPEC).out
    table = text[text.index("model  ") : text.index("tiny: all")]
    check_file(GOLDEN / "status-built.txt", "\n".join(line.rstrip() for line in table.splitlines()) + "\n")
    models = {model["name"]: model for model in json.loads(quick("status", SPEC, "--json").out)["models"]}
    assert models["large"]["ledger"] == asdict(LEDGER)
    assert models["large"]["kl"] == 0.4567
    assert models["middle"]["ledger"] is None


def test_a_family_built_before_there_were_ledgers_shows_no_table_of_them():
    stream = io.StringIO()
    print_trainings([], Console(file=stream))
    assert stream.getvalue() == ""
