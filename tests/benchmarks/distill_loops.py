"""The training loops that are compared, each a process of its own: allocator settings and peak memory are a process's."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

from tests.benchmarks.distill_inputs import ROOT, Inputs, shape_of

TRL: Final = "trl==1.16.0"
SEED: Final = 17
_KILLED: Final = -9


@dataclass(frozen=True, eq=False)
class Loop:
    """One way to distil.

    Attributes:
        name: What it is called in the table.
        module: The file here that runs it.
        keep_pages: Whether the allocator is told to keep its pages; colbuild's own processes always do so.
        values: For colbuild: what its recipe says beside its length.
        settings: For colbuild: what steers it.
    """

    name: str
    module: str
    keep_pages: bool = False
    values: Mapping[str, Any] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)


DENSE: Final = Loop("plain dense loop", "distill_dense")
DENSE_KEPT: Final = Loop("plain dense loop, allocator settings", "distill_dense", keep_pages=True)
GKD: Final = Loop("TRL 1.16 GKD trainer", "distill_trl")
GKD_KEPT: Final = Loop("TRL 1.16 GKD trainer, allocator settings", "distill_trl", keep_pages=True)

# The other loops do not compare hidden states, as a recipe does by default where the student has fewer layers.
_ONLINE: Final = {"loss": {"hidden_weight": 0.0}}
_CACHED: Final = {**_ONLINE, "teacher": "cached"}
_EAGER: Final = {"compile": "never"}
_COMPILED: Final = {"compile": "always"}
EAGER: Final = Loop("colbuild, not compiled", "distill_ours", False, _ONLINE, _EAGER)
EAGER_CACHED: Final = Loop("colbuild, not compiled, cached teacher", "distill_ours", False, _CACHED, _EAGER)
COMPILED: Final = Loop("colbuild, compiled", "distill_ours", False, _ONLINE, _COMPILED)
CACHED: Final = Loop("colbuild, compiled, cached teacher", "distill_ours", False, _CACHED, _COMPILED)


@dataclass(frozen=True)
class Batches:
    """What a loop trains on: `steps` optimiser steps of `batch` x `sequence` tokens each."""

    steps: int
    batch: int
    sequence: int

    @property
    def tokens(self) -> int:
        """Tokens of one step."""
        return self.batch * self.sequence


def recipe(batches: Batches, seed: int, values: Mapping[str, Any]) -> dict[str, Any]:
    """A recipe for these batches: the default one, all of whose weights are trained, as the other loops do; and `values`."""
    return {
        "embeddings": "train",
        "tokens": batches.steps * batches.tokens,
        "batch": batches.batch,
        "sequence": batches.sequence,
        "seed": seed,
        **values,
    }


@dataclass(frozen=True)
class Timing:
    """What a loop's process told.

    Attributes:
        start: Seconds until the first step was done, less one step: imports, loading, and compiling where there is any.
        steps: Seconds of each step but the first.
        peak_gib: The most memory that it held.
        mfu: FLOPs per second as a share of what the GPU can do, where colbuild tells it.
    """

    start: float
    steps: tuple[float, ...]
    peak_gib: float
    mfu: float | None = None


@dataclass(frozen=True)
class Workshop:
    """Where loops run.

    Attributes:
        inputs: What they start from.
        folder: Where what they need and make lies: TRL's environment, what was compiled, lessons, outputs.
        device: "cpu" or "cuda".
    """

    inputs: Inputs
    folder: Path
    device: str = "cpu"

    def time(self, loop: Loop, batches: Batches, output: Path | None = None) -> Timing | None:
        """Runs a loop once; None if the system ended it, which it does where memory ran out.

        Args:
            loop: Which.
            batches: On what; at least two steps.
            output: Where colbuild's model goes, a folder that does not exist; None: nowhere.
        """
        with tempfile.TemporaryDirectory(dir=self.folder) as temporary:
            asked = self._asked(loop, batches, output or Path(temporary) / "output")
            python = self.trl_python() if loop.module == "distill_trl" else Path(sys.executable)
            began = time.monotonic()
            told = self._run(python, loop.module, asked)
        if told is None:
            return None
        ends = told["ends"]
        if len(ends) != batches.steps:
            raise SystemExit(f"{loop.name} told of {len(ends)} steps, not of {batches.steps}")
        steps = tuple(after - before for before, after in pairwise(ends))
        return Timing(ends[0] - began - statistics.median(steps), steps, told["peak_gib"], told.get("mfu"))

    def lessons(self, batches: Batches, seed: int = SEED) -> Path:
        """What the teacher says of some batches, written down once."""
        windows = batches.steps * batches.batch
        made = self.folder / f"lessons-{windows}-{batches.sequence}-{seed}"
        params = {
            "split": "train",
            "seed": seed,
            "sequence": batches.sequence,
            "documents": "joined",
            "precision": "bf16",
            "temperature": 1.0,
            "type": "sampled",
            "windows": windows,
        }
        self.operate("teach", {"teacher": self.inputs.teacher, "corpus": self.inputs.corpus}, params, made)
        return made

    def score(self, model: Path, tokens: int, output: Path) -> dict[str, Any]:
        """How a model does on held-out text: `loss`, and `kl` from the teacher, in nats per token; not twice for an output."""
        inputs = {"model": model, "reference": self.inputs.teacher, "corpus": self.inputs.corpus}
        self.operate("evaluate", inputs, {"tokens": tokens, "split": "heldout"}, output)
        found: dict[str, Any] = json.loads((output / "metrics.json").read_text(encoding="utf-8"))
        return found

    def operate(
        self,
        op: str,
        inputs: Mapping[str, Path],
        params: Mapping[str, Any],
        output: Path,
        settings: Mapping[str, Any] | None = None,
    ) -> None:
        """Runs an operation of colbuild's, unless its output is there."""
        if output.exists():
            return
        # Renamed when whole: the next run does not take a part for it.
        draft = output.with_name(f"{output.name}.draft{os.getpid()}")
        asked = self._operation(op, inputs, params, draft, settings or {})
        if self._run(Path(sys.executable), "distill_ours", asked) is None:
            raise SystemExit(f"memory ran out in {op}")
        draft.rename(output)

    def trl_python(self) -> Path:
        """The Python of TRL's environment, in `trl` in the folder."""
        return self.folder / "trl" / "bin" / "python"

    def install_trl(self) -> bool:
        """Makes that environment, as a user would with our constraints; says whether it is there."""
        if not self.trl_python().exists():
            subprocess.run([sys.executable, "-m", "venv", str(self.folder / "trl")], check=True)
            pip = [str(self.trl_python()), "-m", "pip", "install", "--quiet", "-c", str(ROOT / "constraints.txt"), TRL]
            subprocess.run(pip, capture_output=True, check=False)
        look = [str(self.trl_python()), "-c", "import trl"]
        return subprocess.run(look, capture_output=True, check=False).returncode == 0

    def gpu(self) -> str | None:
        """The name of the first GPU, if there is one."""
        look = "import torch; print(torch.cuda.get_device_name(0) if torch.cuda.is_available() else '')"
        done = subprocess.run([sys.executable, "-c", look], capture_output=True, text=True, check=True)
        return done.stdout.strip() or None

    def _asked(self, loop: Loop, batches: Batches, output: Path) -> dict[str, Any]:
        size = {"steps": batches.steps, "batch": batches.batch, "sequence": batches.sequence}
        if loop.module == "distill_ours":
            inputs = {"teacher": self.inputs.teacher, "corpus": self.inputs.corpus}
            if loop.values.get("teacher") == "cached":
                inputs["lessons"] = self.lessons(batches)
            params = {
                "shape": shape_of(self.inputs.student),
                "recipe": recipe(batches, SEED, loop.values),
                "split": "train",
            }
            # Measuring itself on the way would take time between two steps.
            settings = {"evaluate_every": 0.0, **loop.settings}
            return {**self._operation("distill", inputs, params, output, settings), **size}
        paths = {name: str(getattr(self.inputs, name)) for name in ("teacher", "student", "text")}
        return {**size, **paths, "device": self.device, "keep_pages": loop.keep_pages}

    def _operation(
        self,
        op: str,
        inputs: Mapping[str, Path],
        params: Mapping[str, Any],
        output: Path,
        settings: Mapping[str, Any],
    ) -> dict[str, Any]:
        compiled = self.folder / "compiled"
        compiled.mkdir(exist_ok=True)
        return {
            "op": op,
            "inputs": {role: str(path) for role, path in inputs.items()},
            "params": params,
            "settings": settings,
            "output": str(output),
            "compiled": str(compiled),
            # The product does it by itself.
            "keep_pages": False,
            "batch": 1,
            "sequence": 1,
        }

    def _run(self, python: Path, module: str, asked: dict[str, Any]) -> dict[str, Any] | None:
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "TRANSFORMERS_VERBOSITY": "error"}
        # Each computes with as many threads as the machine has cores.
        environment.pop("OMP_NUM_THREADS", None)
        environment["CUDA_VISIBLE_DEVICES"] = "0" if self.device == "cuda" else ""
        with tempfile.NamedTemporaryFile("w", suffix=".json", encoding="utf-8") as file:
            json.dump(asked, file)
            file.flush()
            command = [str(python), "-m", f"tests.benchmarks.{module}", file.name]
            done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
        if done.returncode == _KILLED:
            return None
        if done.returncode != 0:
            raise SystemExit(f"{module} failed:\n{done.stdout[-2000:]}{done.stderr[-4000:]}")
        told: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
        return told
