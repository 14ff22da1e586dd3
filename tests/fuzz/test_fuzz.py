"""Every kind of file that colbuild reads, damaged and hostile, for a moment; `python -m tests.fuzz` does it for longer."""

from __future__ import annotations

import pytest

from colbuild.errors import ColbuildError
from tests.fuzz.drivers import drivers
from tests.fuzz.frame import Driver, fuzz

DRAWN = 60


@pytest.mark.parametrize("driver", drivers(), ids=lambda driver: driver.kind)
def test_nothing_gets_through(driver, tmp_path):
    tally = fuzz(driver, tmp_path, seconds=2.0, seed=1, most=DRAWN)
    assert sum(tally.counts.values()) > len(driver.cases)
    assert not tally.faults, "\n".join(f"{one.case}: {one.outcome}\n{one.told}" for one in tally.faults)


def _hang(_seeds, _folder):
    while True:
        pass


def _eat(_seeds, _folder):
    kept = [bytearray(b"x" * (1 << 20)) for _ in range(400)]
    del kept


def _escape(_seeds, folder):
    (folder.parent / "outside/escaped").write_text("")


def _fail(_seeds, _folder):
    raise KeyError("recipe")


def _refuse(_seeds, _folder):
    raise ColbuildError("no")


@pytest.mark.parametrize(
    ("attempt", "outcome"),
    [(_hang, "hang"), (_eat, "memory"), (_escape, "outside"), (_fail, "traceback"), (_refuse, "refused")],
)
def test_the_frame_sees_faults(attempt, outcome, tmp_path):
    driver = Driver("toy", lambda _: None, lambda *_: None, attempt, seconds=2.0, memory=100_000_000)
    assert fuzz(driver, tmp_path, seconds=5, most=1).counts == {outcome: 1}
