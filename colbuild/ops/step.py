"""What every operation is given and must fill: the contract between the executor and `colbuild.ops`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from colbuild.progress import Report, silent


@dataclass(frozen=True)
class StepRun:
    """One run of one step. An operation reads `inputs` and `params`, and fills `output`; it knows nothing else.

    Attributes:
        inputs: The directory behind each input role ("model", "corpus", ...); read-only.
        params: The resolved parameters that are part of the step's key: JSON values only.
        output: An existing, empty directory. The same inputs and params give the same bytes in it.
        report: Called now and then with the progress made.
    """

    inputs: Mapping[str, Path]
    params: Mapping[str, Any]
    output: Path
    report: Report = silent
