"""Conditions that are in no key and can change the last bits of a result; the record of each run has them.

See docs/store.md, "The same bytes".
"""

from __future__ import annotations

import importlib.metadata
import os
import platform
from collections.abc import Mapping
from typing import Any, Final

from colbuild.plan.cost.machine import processor

MADE_WITH: Final = "made_with"
"""The key of a run's circumstances in its ledger."""

_STEERING: Final = (
    "ATEN_",
    "CUBLAS_",
    "CUDNN_",
    "DNNL_",
    "GOMP_",
    "KMP_",
    "MKL_",
    "NVIDIA_TF32_OVERRIDE",
    "OMP_",
    "ONEDNN_",
    "OPENBLAS_",
    "ORT_",
    "PYTORCH_",
    "TORCH_",
    "TORCHINDUCTOR_",
)
"""Beginnings of the names of environment variables by which libraries choose how they compute."""

_PLACES: Final = ("_PATH", "_DIR", "_HOME")
"""Ends of the names of those that say where something lies, some of which libraries set by themselves."""

_SET_FOR_EACH_STEP: Final = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OMP_WAIT_POLICY", "GOMP_SPINCOUNT")
_LONGEST: Final = 200
"""Letters of a value that are noted."""


def circumstances(threads: int, environment: Mapping[str, str] = os.environ) -> dict[str, Any]:
    """Returns the conditions of a step that runs now, as JSON values.

    Args:
        threads: How many threads it computes with.
        environment: Environment variables; those that choose how libraries compute are noted.
    """
    steered = {
        name: value[:_LONGEST]
        for name, value in sorted(environment.items())
        if name.startswith(_STEERING) and not name.endswith(_PLACES) and name not in _SET_FOR_EACH_STEP
    }
    return {
        "threads": threads,
        "processor": processor(),
        "system": f"{platform.system()} {platform.machine()}",
        "torch": importlib.metadata.version("torch"),
        "environment": steered,
    }
