"""What a build shows while it runs, on a terminal and off it."""

from __future__ import annotations

import io
import json
import subprocess
import sys

import pytest
from rich.console import Console

from colbuild.events import (
    BuildFinished,
    BuildStarted,
    Notice,
    Packaged,
    SourceProgress,
    StepCached,
    StepFailed,
    StepFinished,
    StepProgress,
    StepStarted,
)
from colbuild.progress import Progress
from colbuild.report.screen.live import Meter, Pace, describe, json_listener, live_listener, plain_listener

STEPS = ("source ansnet", "corpus train", "distill a100")
START = BuildStarted("smol", STEPS, 2)


class Clock:
    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


def tokens(done, total=1_000_000, loss=3.9, phase="training"):
    return Progress(done, total, "tokens", phase, {"loss": loss})


# -- words ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("progress", "pace", "words"),
    [
        (tokens(500_000), Pace(2000.0, 250.0), "training, 500k of 1.0M tokens, 2.0k tokens/s, loss 3.9, 4 min 10 s left"),
        (Progress(3_000_000, 0, "bytes", "downloading"), Pace(1.5e6, None), "downloading, 3.0 MB, 1.5 MB/s"),
        (Progress(3_000_000, 6_000_000, "bytes"), Pace(1e6, 3.0), "3.0 MB of 6.0 MB, 1.0 MB/s, 3 s left"),
        (Progress(3, 9, "candidates", "scoring"), Pace(0.5, 12.0), "scoring, 3 of 9 candidates, 0.5 candidates/s, 12 s left"),
        (Progress(9, 9, "documents"), Pace(30.0, 0.0), "9 of 9 documents, 30 documents/s"),
        (Progress(0, 0, "bytes", "reading"), Pace(), "reading"),
        (Progress(1, 2, "tokens", "", {"bits_per_byte": 1.23456}), Pace(), "1 of 2 tokens, bits per byte 1.235"),
    ],
)  # fmt: skip
def test_progress_in_words(progress, pace, words):
    assert describe(progress, pace) == words


def test_speed_counts_from_the_first_report_of_each_piece_of_work():
    clock = Clock()
    meter = Meter(clock)
    assert meter.measure(tokens(8000)) == Pace()
    clock.now += 4
    assert meter.measure(tokens(16_000, phase="step 2")) == Pace(2000.0, 492.0)
    clock.now += 4
    assert meter.measure(tokens(16_000)) == Pace(1000.0, 984.0)
    clock.now += 100
    assert meter.measure(Progress(5, 10, "candidates")) == Pace()
    clock.now += 2
    assert meter.measure(Progress(6, 10, "candidates")) == Pace(0.5, 8.0)
    assert meter.measure(Progress(1, 10, "candidates")) == Pace()


def test_work_beyond_its_total_has_no_time_left():
    clock = Clock()
    meter = Meter(clock)
    meter.measure(Progress(0, 10, "tokens"))
    clock.now += 1
    assert meter.measure(Progress(20, 10, "tokens")) == Pace(20.0, None)


# -- plain lines ------------------------------------------------------------------------------------------------------


def plain(*timed):
    """The lines for events, each with the seconds that pass before it."""
    clock, file = Clock(), io.StringIO()
    listener = plain_listener(Console(file=file, width=40, markup=True, highlight=True), clock)
    for seconds, event in timed:
        clock.now += seconds
        listener(event)
    return file.getvalue().splitlines()


def test_plain_lines_tell_start_end_and_what_was_cached():
    assert plain(
        (0, START),
        (0, StepCached("source ansnet", "in the store")),
        (0, StepStarted("corpus train", 1, 3)),
        (9, StepFinished("corpus train", 9.0, 4_000_000)),
        (0, StepStarted("distill a100", 2, 3)),
        (1, StepFailed("distill a100", "the loss is nan")),
    ) == [
        "smol: 2 of 3 steps to run",
        "= source ansnet: in the store",
        "[2/3] corpus train",
        "  corpus train: done in 9 s, 4.0 MB",
        "[3/3] distill a100",
        "  distill a100: failed",
    ]


def test_long_lines_and_brackets_come_out_as_they_are():
    path = "out/" + "x" * 80
    assert plain((0, Packaged("phone", "[b]", path, 1000))) == [f"  package phone/[b]: 1.0 kB in {path}"]
    assert plain((0, Notice("note [/red] 12"))) == ["note [/red] 12"]


def test_plain_progress_is_a_line_in_ten_seconds_and_one_at_each_quarter():
    step = "distill a100"
    events = [(0, StepStarted(step, 0, 1))]
    events += [(1, StepProgress(step, tokens(10_000 * done))) for done in range(1, 101)]
    lines = [line for line in plain(*events) if "%" in line]
    shares = [int(line.split("%")[0].split()[-1]) for line in lines]
    assert shares == [1, 11, 21, 25, 35, 45, 50, 60, 70, 75, 85, 95]
    assert lines[3] == ("  distill a100: 25%, training, 250k of 1.0M tokens, 10k tokens/s, loss 3.9, 1 min 15 s left")


def test_quarter_is_told_however_fast_and_each_piece_of_work_has_its_own():
    step = "interpolate phone"
    events = [(0, StepStarted(step, 0, 1))]
    events += [(0.001, StepProgress(step, Progress(done, 8, "candidates", "scoring"))) for done in range(9)]
    events += [(0.001, StepProgress(step, Progress(done, 4, "layers", "writing"))) for done in range(5)]
    lines = plain(*events)[1:]
    assert [line.split(",")[0] for line in lines] == [
        f"  {step}: {share}%" for share in (0, 25, 50, 75, 25, 50, 75)
    ]  # fmt: skip


def test_jump_over_several_quarters_is_one_line():
    step = "x"
    lines = plain((0, StepProgress(step, tokens(0))), (1, StepProgress(step, tokens(800_000))))
    assert [line.split(",")[0] for line in lines] == ["  x: 0%", "  x: 80%"]


def test_plain_download_is_called_by_its_file():
    uri = "pypi://name==1.0/folder/model.gguf"
    lines = plain(
        (0, SourceProgress(uri, Progress(0, 4_000_000, "bytes", "downloading"))),
        (2, SourceProgress(uri, Progress(2_000_000, 4_000_000, "bytes", "downloading"))),
    )
    assert lines[1] == "  model.gguf: 50%, downloading, 2.0 MB of 4.0 MB, 1.0 MB/s, 2 s left"


def test_nothing_to_run_says_nothing():
    assert (
        plain((0, BuildStarted("smol", STEPS, 0)), (0, StepCached("source ansnet", "x")), (0, BuildFinished(0, 3, 0.1)))
        == []
    )


# -- JSON -------------------------------------------------------------------------------------------------------------


def test_json_lines_are_one_event_each():
    stream = io.StringIO()
    listener = json_listener(stream)
    listener(START)
    listener(StepProgress("distill a100", tokens(5)))
    first, second = (json.loads(line) for line in stream.getvalue().splitlines())
    assert (first["event"], first["family"], first["v"]) == ("build_started", "smol", 1)
    assert second["progress"]["metrics"] == {"loss": 3.9}


# -- a terminal -------------------------------------------------------------------------------------------------------


def terminal(*timed, encoding="utf-8", width=160):
    """What stays on a terminal, and everything that was drawn on it."""
    clock = Clock()
    raw = io.BytesIO()
    file = io.TextIOWrapper(raw, encoding=encoding, write_through=True)
    console = Console(
        file=file, force_terminal=True, width=width, color_system=None, markup=False, legacy_windows=False
    )
    shown = []
    with live_listener(console, clock) as listener:
        for seconds, event in timed:
            clock.now += seconds
            listener(event)
            shown.append(drawn(listener, width))
    return raw.getvalue().decode(encoding), shown


def drawn(listener, width):
    """The bars as they stand, rendered without a terminal."""
    console = Console(file=io.StringIO(), width=width, color_system=None)
    console.print(listener.__self__.bars.get_renderable())
    return console.file.getvalue()


def test_terminal_shows_the_running_step_and_keeps_the_finished_ones():
    step = "distill a100"
    text, shown = terminal(
        (0, START),
        (0, StepCached("source ansnet", "in the store")),
        (0, StepStarted(step, 2, 3)),
        (5, StepProgress(step, tokens(100_000))),
        (50, StepProgress(step, tokens(200_000, loss=3.8123))),
        (60, StepFinished(step, 61.2, 200_000_000)),
    )
    assert "= source ansnet: in the store" in text
    assert "✓ distill a100  1 min 1 s, 200.0 MB" in text
    assert "[3/3] distill a100" in shown[2]
    assert "training, 200k of 1.0M tokens, 2.0k tokens/s, loss 3.812, 6 min 40 s left" in shown[4]
    assert "distill" not in shown[5]


def test_terminal_marks_a_failed_step_and_leaves_no_bar():
    text, shown = terminal((0, START), (0, StepStarted("corpus train", 1, 3)), (2, StepFailed("corpus train", "why")))
    assert "✗ corpus train  failed" in text
    assert "why" not in text
    assert not shown[-1].strip()


def test_terminal_without_unicode_gets_ascii_marks():
    text, _ = terminal((0, START), (0, StepStarted("a", 0, 1)), (0, StepFinished("a", 1.0, 10)), encoding="ascii")
    assert "+ a  1 s, 10 B" in text


def test_terminal_shows_a_download_until_something_else_happens():
    uri = "hf://org/name@main"
    text, shown = terminal(
        (0, SourceProgress(uri, Progress(0, 4_000_000, "bytes", "downloading"))),
        (2, SourceProgress(uri, Progress(4_000_000, 4_000_000, "bytes", "downloading"))),
        (0, START),
    )
    assert "name@main" in shown[1]
    assert "downloading, 4.0 MB of 4.0 MB, 2.0 MB/s" in shown[1]
    assert "✓ name@main  2 s, 4.0 MB" in text
    assert not shown[2].strip()


def test_names_are_never_taken_for_markup():
    text, shown = terminal(
        (0, BuildStarted("f", ("export [red]x[/red]",), 1)),
        (0, StepStarted("export [red]x[/red]", 0, 1)),
        (0, Notice("odd [/b] note")),
        (1, StepFinished("export [red]x[/red]", 1.0, 10)),
    )
    assert "export [red]x[/red]" in shown[1]
    assert "✓ export [red]x[/red]" in text
    assert "odd [/b] note" in text


def test_narrow_terminal_keeps_one_line_per_bar():
    step = "distill a100"
    _, shown = terminal((0, START), (0, StepStarted(step, 2, 3)), (5, StepProgress(step, tokens(100_000))), width=50)
    assert len(shown[-1].rstrip("\n").split("\n")) == 1


def test_an_error_inside_ends_the_display_and_goes_on():
    with pytest.raises(RuntimeError), live_listener(Console(file=io.StringIO(), force_terminal=True)) as listener:
        listener(START)
        raise RuntimeError


def test_showing_imports_no_torch_and_no_rich_until_needed():
    code = (
        "import sys, colbuild.report.screen.live; "
        "sys.exit(any(name.split('.')[0] in ('torch', 'transformers', 'rich') for name in sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
