"""Streaming a model takes memory for its largest tensors, whatever the size of the whole."""

from __future__ import annotations

import json
import sys

import pytest

from tests.benchmarks.interpolate import run_process
from tests.benchmarks.interpolate_inputs import HALF, anchors_in

LARGEST = 49152 * 576 * 4


@pytest.mark.slow
def test_memory_does_not_grow_with_the_model(tmp_path):
    anchors = anchors_in(tmp_path, HALF)
    job = {"larger": anchors.one, "smaller": anchors.narrow, "output": tmp_path / "made", "shard": HALF.shard}
    told = json.dumps({**{key: str(value) for key, value in job.items()}, "lengths": dict(HALF.between)})
    turn = run_process([sys.executable, "-m", "tests.benchmarks.interpolate_ours", told])
    written = sum(path.stat().st_size for path in (tmp_path / "made").glob("*.safetensors"))
    assert written > 4 * 10**8
    assert turn.memory <= 2 * LARGEST + 200 * 10**6
