"""Steps in processes of their own: side by side, failing, retried, stopped."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from colbuild.errors import EXIT_FAILED, StoppedError
from colbuild.events import Event, Notice, StepCached, StepFailed, StepFinished, StepProgress, StepStarted
from colbuild.fetch.contents import Sources
from colbuild.plan.cost.machine_resources import Resources
from colbuild.plan.drawing.build_graph import BuildGraph
from colbuild.plan.drawing.step import Step
from colbuild.run import executor
from colbuild.run.build_outcome import Executed, StepError
from colbuild.run.build_request import BuildRequest, Options
from colbuild.run.executor import execute
from colbuild.run.process import nursery
from colbuild.run.process.circumstances import MADE_WITH
from colbuild.store import Store, open_store
from tests.helpers.nurseries import SharedNursery
from tests.helpers.steps import named_step
from tests.run.fakes import SERVE

ROOMY = Resources(4, 10**10)


@pytest.fixture(scope="module")
def fake_nursery() -> Iterator[SharedNursery]:
    def fresh() -> nursery.Nursery:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(nursery, "_SERVE", SERVE)
            return nursery.open_nursery()

    shared = SharedNursery(fresh=fresh)
    yield shared
    shared.close()


@dataclass(eq=False)
class Builds:
    """Executes graphs of fake steps in one store."""

    folder: Path
    store: Store
    events: list[Event] = field(default_factory=list)
    memory: dict[str, int] = field(default_factory=dict)
    hear: Callable[[Event], None] = lambda event: None

    def run(self, *steps: Step, **options: object) -> Executed:
        self.events.clear()

        def listener(event: Event) -> None:
            self.events.append(event)
            self.hear(event)

        request = BuildRequest(
            BuildGraph(steps, {}, {}, {}, {}),
            "family",
            self.store,
            Sources(self.folder, self.store.downloads, {}),
            listener,
            lambda step, record: None,
            self.folder / "logs",
            self.memory,
            Options(**{"resources": ROOMY, **options}),  # type: ignore[arg-type]
        )
        return execute(request)

    def seen(self, kind: type) -> list[str]:
        return [event.step for event in self.events if isinstance(event, kind)]


@pytest.fixture
def builds(tmp_path, fake_nursery, monkeypatch):
    monkeypatch.setattr(executor, "open_nursery", lambda: fake_nursery)
    store = open_store(tmp_path / "store")
    store.prepare()
    return Builds(tmp_path, store)


def step(name: str, *do: tuple[str, object], op: str = "evaluate", needs: tuple[str, ...] = (), text: str = "") -> Step:
    return named_step(
        name, op, {"do": [list(one) for one in do], "text": text or name}, {other: other for other in needs}
    )


def gone(pid: int) -> bool:
    """Whether a process ends within some seconds."""
    for _ in range(500):
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return True
        time.sleep(0.01)
    return False


def made(builds: Builds, done: Executed, name: str) -> str:
    return (builds.store.files(done.records[name].output) / "made").read_text()


def test_independent_steps_run_side_by_side(builds, tmp_path):
    here, there = tmp_path / "here", tmp_path / "there"
    done = builds.run(step("a", ("meet", f"{here}|{there}")), step("b", ("meet", f"{there}|{here}")))
    assert set(done.ran) == {"a", "b"}


@pytest.mark.parametrize("limit", ["jobs", "cores", "memory"])
def test_what_does_not_fit_waits(builds, tmp_path, limit):
    steps = [step(name, ("alone", str(tmp_path / "room"))) for name in "abc"]
    if limit == "jobs":
        builds.run(*steps, jobs=1)
    elif limit == "cores":
        builds.run(*steps, resources=Resources(1, 10**10))
    else:
        builds.memory = dict.fromkeys("abc", 6 * 10**9)
        builds.run(*steps)
    assert builds.seen(StepFinished) == ["a", "b", "c"]


def test_each_step_has_a_process_of_its_own_with_its_threads(builds, tmp_path):
    builds.run(step("a", ("note_process", str(tmp_path / "a"))), step("b", ("note_process", str(tmp_path / "b"))))
    (one, threads), (other, _) = ((tmp_path / name).read_text().split() for name in "ab")
    assert len({int(one), int(other), os.getpid()}) == 3
    assert threads == "2"
    for pid in (one, other):
        assert gone(int(pid))


def test_results_flow_and_a_second_build_starts_no_process(builds, monkeypatch):
    steps = (step("a"), step("b", needs=("a",)))
    assert made(builds, builds.run(*steps), "b") == "b{'a': 'a'}"
    monkeypatch.setattr(executor, "open_nursery", lambda: pytest.fail("nothing is to run"))
    done = builds.run(*steps)
    assert (done.ran, builds.seen(StepCached)) == ((), ["a", "b"])


def test_a_crash_takes_nobody_along(builds, tmp_path):
    here, there = tmp_path / "here", tmp_path / "there"
    steps = (
        step("bad", ("meet", f"{here}|{there}"), ("die", "SIGKILL")),
        step("good", ("meet", f"{there}|{here}"), ("sleep", 0.3)),
        step("after bad", needs=("bad",)),
        step("after good", needs=("good",)),
    )
    with pytest.raises(StepError) as caught:
        builds.run(*steps)
    assert "bad: its process was killed, probably because memory ran out" in caught.value.message
    assert "one other step does not need it" in str(caught.value.hint)
    assert "builds after good" in str(caught.value.hint)
    assert builds.seen(StepFinished) == ["good"]
    assert builds.seen(StepFailed) == ["bad"]


def test_a_segmentation_fault_is_told_with_its_log(builds):
    with pytest.raises(StepError, match=r"ended by signal 11; its log is .*a\.log"):
        builds.run(step("a", ("die", "SIGSEGV")))


def test_keep_going_builds_all_that_does_not_need_the_failed(builds):
    steps = (
        step("bad", ("refuse", "no")),
        step("worse", ("refuse", "never")),
        step("good", ("sleep", 0.1)),
        step("after bad", needs=("bad", "good")),
        step("after good", needs=("good",)),
    )
    with pytest.raises(StepError) as caught:
        builds.run(*steps, keep_going=True)
    assert builds.seen(StepFinished) == ["good", "after good"]
    assert caught.value.message.splitlines() == [
        "bad: no",
        "worse: never",
        "not built, since they need these: after bad",
    ]
    assert (caught.value.hint, caught.value.exit_code) == ("do something else", EXIT_FAILED)


def test_a_crash_is_retried_and_what_was_refused_is_not(builds, tmp_path):
    done = builds.run(step("a", ("die_once", str(tmp_path / "died"))), retries=1)
    assert done.ran == ("a",)
    assert any("trying again (1 of 1)" in event.message for event in builds.events if isinstance(event, Notice))
    with pytest.raises(StepError):
        builds.run(step("b", ("count", str(tmp_path / "tries")), ("refuse", "no")), retries=3)
    assert (tmp_path / "tries").read_text() == "x"


def test_retries_end(builds, tmp_path):
    with pytest.raises(StepError):
        builds.run(step("b", ("count", str(tmp_path / "tries")), ("die", "SIGKILL")), retries=2)
    assert (tmp_path / "tries").read_text() == "xxx"


def test_an_unexpected_error_shows_the_last_lines_of_its_log(builds, tmp_path):
    with pytest.raises(StepError) as caught:
        builds.run(step("a", ("stumble", "a mistake of ours")))
    first, *lines = caught.value.message.splitlines()
    assert first == "a: an unexpected ZeroDivisionError: a mistake of ours"
    assert lines and all(line.startswith("  | ") for line in lines)
    assert "just before" in (tmp_path / "logs" / "a.log").read_text()


def test_what_a_step_prints_is_in_its_log_and_nowhere_else(builds, tmp_path, capfd):
    builds.run(step("a", ("say", "from above")))
    log = (tmp_path / "logs" / "a.log").read_text()
    assert "from above\nfrom below\n" in log
    assert log.splitlines()[0].startswith("-- a, ")
    assert log.splitlines()[-1].startswith("-- done after ")
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP], ids=lambda number: number.name)
def test_the_first_interrupt_stops_at_the_next_boundary_and_the_next_build_goes_on_there(builds, number):
    def interrupt(event: Event) -> None:
        if isinstance(event, StepProgress) and event.progress.done == 3:
            builds.hear = lambda event: None
            os.kill(os.getpid(), number)
            if number == signal.SIGHUP:
                # A terminal may say it more than once.
                os.kill(os.getpid(), number)

    builds.hear = interrupt
    steps = (step("long", ("walk", 200)), step("after", needs=("long",)))
    # Under nohup it is ignored, here too.
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    try:
        with pytest.raises(StoppedError) as caught:
            builds.run(*steps)
    finally:
        signal.signal(signal.SIGHUP, before)
    first, where = caught.value.message.splitlines()
    assert first == "interrupted: 0 of 2 steps are in the store"
    reached = int(where.removeprefix("  long: stopped at ").split()[0])
    assert 3 < reached < 200
    assert any(
        "press Ctrl-C again to end at once" in event.message for event in builds.events if isinstance(event, Notice)
    )
    done = builds.run(*steps)
    went_on = [event.progress for event in builds.events if isinstance(event, StepProgress)]
    assert (went_on[0].done, set(done.ran)) == (reached, {"long", "after"})
    assert not list((builds.store.root / "partial").iterdir())


def test_the_second_interrupt_ends_at_once(builds):
    def interrupt(event: Event) -> None:
        if isinstance(event, StepStarted | Notice):
            os.kill(os.getpid(), signal.SIGINT)

    builds.hear = interrupt
    # Shells have what runs in their background ignore the signal.
    before = signal.getsignal(signal.SIGINT)
    started = time.monotonic()
    with pytest.raises(StoppedError, match="ended at once"):
        builds.run(step("long", ("sleep", 60)))
    assert time.monotonic() - started < 5
    assert signal.getsignal(signal.SIGINT) is before
    # Nothing of it holds a lock, and its draft is cleared away.
    builds.hear = lambda event: None
    for _ in range(50):
        builds.store.prepare()
        if not list((builds.store.root / "tmp").iterdir()):
            break
        # The system closes a killed process's files one after the other.
        time.sleep(0.02)
    assert not list((builds.store.root / "tmp").iterdir())


def test_an_input_damaged_in_the_store_is_built_again_before_it_is_packaged(builds):
    steps = (step("model", op="distill"), step("package", op="export", needs=("model",)))
    done = builds.run(steps[0])
    path = builds.store.files(done.records["model"].output) / "made"
    times = path.stat()
    path.chmod(0o644)
    path.write_text("MODEL"[: times.st_size])
    path.chmod(0o444)
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    done = builds.run(*steps)
    assert made(builds, done, "package") == "package{'model': 'model'}"
    assert list((builds.store.root / "quarantine").iterdir())


def test_a_result_that_vanishes_during_the_build_is_made_again(builds):
    def vanish(event: Event) -> None:
        if isinstance(event, StepFinished) and event.step == "a":
            builds.hear = lambda event: None
            [folder] = (builds.store.root / "objects").glob("*/*")
            folder.rename(builds.folder / "gone")

    builds.hear = vanish
    done = builds.run(step("a"), step("b", needs=("a",)))
    assert made(builds, done, "b") == "b{'a': 'a'}"
    assert builds.seen(StepFinished) == ["a", "a", "b"]


def test_a_killed_nursery_is_replaced(builds, monkeypatch, tmp_path):
    opened = []

    def open_nursery():
        opened.append(fresh())
        return opened[-1]

    fresh = nursery.open_nursery
    monkeypatch.setattr(nursery, "_SERVE", SERVE)
    monkeypatch.setattr(executor, "open_nursery", open_nursery)

    def kill(event: Event) -> None:
        if isinstance(event, StepStarted):
            builds.hear = lambda event: None
            opened[0]._process.kill()

    builds.hear = kill
    done = builds.run(step("a", ("sleep", 0.5)), step("b", needs=("a",)), retries=1)
    assert (len(opened), made(builds, done, "b")) == (2, "b{'a': 'a'}")


# -- what decides no result -------------------------------------------------------------------------------------------


def test_figures_that_a_step_notes_are_told_and_recorded_and_are_in_no_key(builds, tmp_path):
    told = step("a", ("keep_figures", "x"))
    first = builds.run(replace(told, settings={"track": ["tensorboard"]}))
    figures = {"tokens": 3, "loss": 1.5}
    [finished] = [event.ledger for event in builds.events if isinstance(event, StepFinished)]
    assert finished == first.records["a"].ledger == {**figures, MADE_WITH: finished[MADE_WITH]}
    assert builds.store.lookup(first.records["a"].key) == first.records["a"]
    # Another setting, and nothing runs again.
    again = builds.run(replace(told, settings={"track": []}))
    assert again.ran == ()
    assert again.records["a"].ledger == finished


def test_a_step_s_readings_lie_beside_its_log_and_compiled_code_in_the_store(builds, tmp_path):
    builds.run(replace(step("evaluate a1.5", ("keep_figures", "x")), settings={"compile": "auto"}))
    assert (tmp_path / "logs/evaluate a1.5.log").exists()
    assert (tmp_path / "logs/evaluate a1.5.metrics.jsonl").read_text() == "x {'compile': 'auto'}\n"
    assert (builds.store.layout.folder("compiled") / "kernel").read_text() == "x"


def test_an_interrupt_that_a_listener_raises_ends_the_build_and_comes_out(builds):
    def hear(event):
        if isinstance(event, StepStarted):
            raise KeyboardInterrupt

    builds.hear = hear
    with pytest.raises(KeyboardInterrupt):
        builds.run(step("a", ("sleep", 30)), step("b", needs=("a",)))
