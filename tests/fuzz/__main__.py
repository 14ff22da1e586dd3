"""`python -m tests.fuzz [--minutes N] [--kind K] [--seed N] [--json FILE] [--work FOLDER]`: counts inputs by kind and outcome.

Exits with 1 where an input got through; such inputs are kept in `FOLDER/<kind>/faults`.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from dataclasses import asdict, replace
from pathlib import Path

from tests.fuzz.drivers import drivers
from tests.fuzz.frame import OUTCOMES, Tally, fuzz


def main() -> int:
    """Runs the drivers one after the other, each for its share of the time."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--minutes", type=float, default=5.0, help="for all kinds together")
    parser.add_argument("--kind", action="append", help="only this kind; may be given several times")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--work", type=Path)
    given = parser.parse_args()
    chosen = [one for one in drivers() if not given.kind or one.kind in given.kind]
    work = given.work or Path(tempfile.mkdtemp(prefix="colbuild-fuzz-"))
    tallies = []
    print(f"{'kind':28}" + "".join(f"{name:>11}" for name in ("inputs", *OUTCOMES)))
    for driver in chosen:
        tally = fuzz(driver, work / driver.kind, seconds=60 * given.minutes / len(chosen), seed=given.seed)
        tallies.append(tally)
        counts = [sum(tally.counts.values()), *(tally.counts.get(name, 0) for name in OUTCOMES)]
        print(f"{tally.kind:28}" + "".join(f"{count:11}" for count in counts), flush=True)
        _print_faults(tally)
    if given.json:
        given.json.write_text(
            json.dumps([asdict(replace(one, counts=dict(one.counts))) for one in tallies], indent=1) + "\n",
            encoding="utf-8",
        )
    return int(any(one.faults for one in tallies))


def _print_faults(tally: Tally) -> None:
    for fault in tally.faults[:10]:
        print(f"  {fault.case}: {fault.outcome}: {fault.told.strip().splitlines()[-1:]}")


if __name__ == "__main__":
    sys.exit(main())
