"""colbuild's interpolation as a whole process: `python -m tests.benchmarks.interpolate_ours JOB`, JOB a line of JSON.

Says how many seconds the work itself took, without starting Python and its imports.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

from colbuild.arch import read_structure
from colbuild.progress import silent
from colbuild.weights.mixing.mixture import Mix
from colbuild.weights.mixing.streaming import stream_mix


def main(asked: dict[str, object]) -> None:
    """Writes one DesNet."""
    larger, smaller, output = (Path(str(asked[name])) for name in ("larger", "smaller", "output"))
    config = json.loads((larger / "config.json").read_text(encoding="utf-8")) | asked["lengths"]
    began = time.perf_counter()
    output.mkdir()
    how = Mix(0.5, 0.5, 0.5, 0.0, 0.0)
    stream_mix(larger, smaller, read_structure(config).shape, how, output, silent, int(str(asked["shard"])))
    sys.stdout.write(f"{time.perf_counter() - began}\n")


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
