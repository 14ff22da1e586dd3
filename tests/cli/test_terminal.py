"""Control characters in text from outside are shown, wherever it is printed; a terminal obeys none of them."""

from __future__ import annotations

import io
import json
import re
import sys
from pathlib import Path

from colbuild.cli import common
from colbuild.events import BuildStarted, Notice, RemoteLost, SourceProgress, StepFailed, StepProgress, StepStarted
from colbuild.progress import Progress
from colbuild.report.screen import live
from colbuild.report.screen.printed import shown, shown_json
from colbuild.report.screen.streams import Messages
from tests.helpers.project import replace_in

SPEC = "specs/tiny.yaml"
HOSTILE = "a\x1b[2J\x1b]0;title\x07\x9b31m\x7f\u202eb\r\x08\u2066c\u2028d[bold]e[/bold]"
CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069\u2028\u2029]")
OURS = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
"""What rich itself sends to a terminal."""


def assert_shown(text: str) -> None:
    assert not CONTROL.search(text.replace("\n", "")), text
    assert r"\x1b" in text


def test_what_is_shown():
    assert shown("a\tb\n\x1b[2Jé€\U0001f600") == "a\tb\n\\x1b[2Jé€\U0001f600"
    assert shown("\x9b\u202e\udc80") == r"\x9b\u202e\udc80"
    assert not CONTROL.search(shown_json({HOSTILE: [HOSTILE]}))
    assert json.loads(shown_json({HOSTILE: [HOSTILE]})) == {HOSTILE: [HOSTILE]}


class Terminal(io.StringIO):
    """Keeps what it is sent."""

    def isatty(self):
        return True


def test_tables_messages_and_bars_on_a_terminal(monkeypatch):
    from rich.table import Table
    from rich.text import Text

    screen = Terminal()
    monkeypatch.setattr(sys, "stdout", screen)
    monkeypatch.setattr(sys, "stderr", screen)
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", "150")
    console = common.open_console()
    table = Table(HOSTILE, title=HOSTILE)
    table.add_row(HOSTILE)
    table.add_row(Text(HOSTILE))
    console.print(table)
    console.print(HOSTILE, style="red", soft_wrap=True)
    common.print_error(HOSTILE, HOSTILE)
    common.print_warning(HOSTILE)
    with live.live_listener(common.open_console(stderr=True)) as listen:
        for event in (
            BuildStarted(HOSTILE, (HOSTILE,), 1),
            StepStarted(HOSTILE, 0, 1),
            StepProgress(HOSTILE, Progress(1, 2, HOSTILE, HOSTILE, {HOSTILE: 1.0})),
            SourceProgress(HOSTILE, Progress(1, 2, "bytes", HOSTILE)),
            Notice(HOSTILE),
            RemoteLost(HOSTILE),
            StepFailed(HOSTILE, HOSTILE),
        ):
            listen(event)
            listen.__self__.bars.refresh()
    text = screen.getvalue()
    assert "\x1b[" in text
    # A live display returns to the beginning of its lines.
    assert_shown(OURS.sub("", text).replace("\r", ""))
    assert "[bold]" in text


def test_plain_lines_and_json_lines(capsys):
    for listen in (live.plain_listener(common.open_console()), live.json_listener(sys.stdout)):
        for event in (BuildStarted(HOSTILE, (HOSTILE,), 1), StepStarted(HOSTILE, 0, 1), Notice(HOSTILE)):
            listen(event)
    out = capsys.readouterr().out
    assert not CONTROL.search(out.replace("\n", ""))
    assert json.loads(out.splitlines()[-1])["message"] == HOSTILE


def test_what_libraries_print_as_messages():
    raw = io.BytesIO()
    stream = Messages(io.BufferedWriter(raw), encoding="utf-8", write_through=True)
    print(HOSTILE, file=stream, flush=True)
    assert_shown(raw.getvalue().decode())
    stream.unescaped.write("\x1b[1mbold")
    stream.flush()
    assert raw.getvalue().endswith(b"\x1b[1mbold")
    assert not stream.closed


GIVEN = (
    ("plan", "specs/\x1b[2J.yaml"), ("plan", SPEC, "--\x1b[2J"), ("\x1b[2J",), ("run", "\x1b[2J", "--prompt", "x"),
    ("verify", "\x1b[2J"), ("why", "\x1b[2J", SPEC), ("plan", SPEC, "--target", "\x1b[2J"), ("cache", "verify", "\x1b[2J"),
    ("build", SPEC, "--plan", "\x1b[2J"), ("cache", "ls", "--store", "\x1b[2J"),
)  # fmt: skip


def test_names_that_a_command_is_given(colbuild):
    for arguments in GIVEN:
        ran = colbuild(*arguments)
        assert_shown(ran.out + ran.err)


def test_a_spec(colbuild, project):
    replace_in(project / SPEC, "name: tiny", 'name: "ti\\e[2Jny"')
    ran = colbuild("plan", SPEC)
    assert ran.code == 3
    assert not CONTROL.search((ran.out + ran.err).replace("\n", ""))


def test_names_of_files(colbuild, project):
    (project / "specs/\x1b[2Jx.yaml").write_text((project / SPEC).read_text())
    for arguments in (("plan",), ("show",), ("show", "--resolved"), ("lock",), ("status",)):
        ran = colbuild(*arguments, "specs/\x1b[2Jx.yaml")
        assert not CONTROL.search((ran.out + ran.err).replace("\n", "")), arguments


def test_generated_text_and_what_a_package_says_of_itself(colbuild, tmp_path, monkeypatch):
    class Answer:
        chat, pieces = True, ("a\x1b", "[2Jb\x07", "\n\tc")

        def summary(self):
            return HOSTILE

    monkeypatch.setattr("colbuild.answer", lambda *_, **__: Answer())
    monkeypatch.setattr("colbuild.find_package", lambda given: Path("x\x1b[2J"))
    ran = colbuild("run", str(tmp_path), "--prompt", "x")
    assert ran.out == "a\\x1b[2Jb\\x07\n\tc\n"
    assert_shown(ran.err)


def test_no_module_of_the_command_line_prints_by_itself():
    """All text goes through `colbuild.report.screen.printed` and `colbuild.report.screen.screen`."""
    folder = Path(common.__file__).parent
    for path in folder.glob("*.py"):
        if path.stem not in ("printed", "screen", "streams", "start"):
            text = path.read_text()
            assert not re.search(r"sys\.stdout\.write|\bprint\(|Console\((?!stderr)", re.sub(r"\.print\(", "", text)), (
                path
            )
