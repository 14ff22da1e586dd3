"""When a training counts as worse than its start."""

from __future__ import annotations

import pytest

from colbuild.train.watching.measure import HeldOut
from colbuild.train.watching.outcome import ON_POLICY, Worsened, worsened


def measured(*windows):
    return HeldOut(sum(windows) / len(windows), None, windows)


@pytest.mark.parametrize(
    ("start", "end", "noise"),
    [
        (measured(3.9, 4.0, 4.1), measured(7.8, 7.9, 8.0), 0.05),
        # Below what counts at all.
        (measured(3.9, 4.0, 4.1), measured(3.93, 4.04, 4.13), None),
        (measured(3.9, 4.0, 4.1), measured(3.0, 3.1, 3.2), None),
        # One window in four says it: no more than noise.
        (measured(4.0, 4.0, 4.0, 4.0), measured(4.0, 4.0, 4.0, 5.0), None),
        (measured(4.0), measured(4.4), None),
        (measured(4.0), measured(4.6), 0.5),
        (measured(4.0, 4.0), measured(float("nan"), 4.0), 0.05),
        (measured(4.0, 4.0), measured(float("inf"), 4.0), 0.05),
        (measured(float("nan"), 4.0), measured(9.0, 9.0), None),
        (None, measured(4.0), None),
        (measured(4.0), None, None),
    ],
)
def test_an_end_is_worse_by_more_than_noise(start, end, noise):
    found = worsened(start, end)
    assert (found is None) == (noise is None)
    if found is not None:
        assert isinstance(found, Worsened)
        assert found.noise == pytest.approx(noise)
        assert found.start == start.loss


def test_on_its_own_text_a_student_may_lose_more_on_other_text():
    start = measured(3.9, 4.0, 4.1)
    assert worsened(start, measured(4.2, 4.3, 4.4), ON_POLICY) is None
    assert worsened(start, measured(4.2, 4.3, 4.4)) is not None
    assert worsened(start, measured(4.5, 4.6, 4.7), ON_POLICY) is not None
