"""Sends a training's readings to JSON lines, and to TensorBoard, W&B and MLflow through Accelerate.

::

    logs/<run>/distill a76.metrics.jsonl   {"step": 41, "kind": "train", "loss": 3.91, ...}
    logs/<run>/distill a76.tracking/       what the services write, as long as the user's environment names no server

A reading that cannot be kept is lost, and said so once: it ends no training.
"""

from __future__ import annotations

import json
import math
import os
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any, Final, Protocol
from urllib.parse import unquote

from accelerate import PartialState
from accelerate.tracking import GeneralTracker, MLflowTracker, TensorBoardTracker, WandBTracker

from colbuild.errors import BuildError
from colbuild.train.loop.training_state import Reading
from colbuild.train.watching.measure import HeldOut

SUFFIX: Final = ".metrics.jsonl"
PROJECT: Final = "colbuild"
"""What W&B calls a project and MLflow an experiment, where the user's environment has no other name."""


class Sink(Protocol):
    """Something that takes readings."""

    def log(self, kind: str, step: int, values: Mapping[str, float]) -> None:
        """Takes the values of one kind after so many steps."""

    def finish(self) -> None:
        """Hears that no more will come."""


class Tracker:
    """Hands each reading of a training to every sink.

    Attributes:
        trouble: What could not be kept, and why; empty if nothing. A sink that failed is asked no more.
    """

    def __init__(self) -> None:
        self.trouble = ""
        self._sinks: dict[str, Sink] = {}

    def add(self, name: str, make: Callable[[], Sink]) -> None:
        """Starts a sink; one that does not start is lost like one that fails later."""
        self._attempt(name, lambda: self._sinks.update({name: make()}))

    def reading(self, reading: Reading, *, tokens_per_second: float, seconds: float) -> None:
        """Takes in a step that was done.

        Args:
            reading: The step's.
            tokens_per_second: How fast it was.
            seconds: How long the training has run, this time.
        """
        values = {
            "loss": reading.loss,
            "kl": reading.kl,
            "ce": reading.ce,
            "hidden": reading.hidden,
            "lr": reading.lr,
            "norm": reading.norm,
            "tokens_per_second": tokens_per_second,
            "seconds": seconds,
        }
        if reading.written:
            names = ("written", "written_kl", "written_length")
            values |= {name: getattr(reading, name) for name in names}
        self._log("train", reading.step + 1, values)

    def held_out(self, step: int, found: HeldOut) -> None:
        """Takes in what was measured on held-out text after so many steps."""
        self._log("heldout", step, {"loss": found.loss} if found.kl is None else {"loss": found.loss, "kl": found.kl})

    def finish(self) -> None:
        """Ends every sink."""
        for name, sink in list(self._sinks.items()):
            self._attempt(name, sink.finish)
        self._sinks.clear()

    def _log(self, kind: str, step: int, values: Mapping[str, float]) -> None:
        for name, sink in list(self._sinks.items()):
            self._attempt(name, partial(sink.log, kind, step, values))

    def _attempt(self, name: str, act: Callable[[], None]) -> None:
        try:
            act()
        except Exception as error:  # noqa: BLE001  (a service's library, or its network, may raise anything at all)
            # Into the step's log: once, for the sink is gone then.
            traceback.print_exc()
            self._sinks.pop(name, None)
            first = str(error).strip().partition("\n")[0] or type(error).__name__
            self.trouble = f"{name} no longer accepts readings: {first}"


@contextmanager
def tracking(metrics: Path | None, track: Sequence[str], settings: Mapping[str, Any]) -> Iterator[Tracker]:
    """A tracker for one training, whose sinks are ended with the block.

    Args:
        metrics: The file for JSON lines, appended to; the services write beside it. None: nothing is kept.
        track: The recipe's `track`.
        settings: What the training was asked to do, for the services to show: the recipe's JSON values.

    Raises:
        BuildError: A library that `track` needs is not installed.
    """
    for service in track:
        _require(service, _SERVICES[service])
    tracker = Tracker()
    if metrics is not None:
        tracker.add(metrics.name, partial(_Lines, metrics))
        stem = metrics.name.removesuffix(SUFFIX)
        folder = metrics.with_name(f"{stem}.tracking")
        for service in track:
            tracker.add(service, partial(_Service, service, folder, unquote(stem), settings))
    try:
        yield tracker
    finally:
        tracker.finish()


# -- sinks ------------------------------------------------------------------------------------------------------------


class _Lines:
    """A file of JSON lines; what is no number is null in it."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        # Unbuffered: a line is one write, so that a killed training leaves whole lines.
        self._file = path.open("ab", buffering=0)

    def log(self, kind: str, step: int, values: Mapping[str, float]) -> None:
        finite = {name: value if math.isfinite(value) else None for name, value in values.items()}
        self._file.write(json.dumps({"step": step, "kind": kind, **finite}).encode() + b"\n")

    def finish(self) -> None:
        self._file.close()


class _Service:
    """One of Accelerate's trackers, which names a value `train/loss`."""

    def __init__(self, service: str, folder: Path, name: str, settings: Mapping[str, Any]) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        # A training has it already. Without it, Accelerate's log refuses what W&B's tracker says (1.15).
        PartialState()
        self._tracker = _SERVICES[service].open(folder, name)
        self._tracker.start()
        self._tracker.store_init_configuration(_flat(settings))

    def log(self, kind: str, step: int, values: Mapping[str, float]) -> None:
        self._tracker.log({f"{kind}/{name}": value for name, value in values.items()}, step=step)

    def finish(self) -> None:
        self._tracker.finish()


def _flat(settings: Mapping[str, Any], prefix: str = "") -> dict[str, bool | int | float | str]:
    """Settings by their path, as in `loss.type`, in types that every service knows."""
    found: dict[str, bool | int | float | str] = {}
    for name, value in settings.items():
        if isinstance(value, Mapping):
            found |= _flat(value, f"{prefix}{name}.")
        elif value is not None:
            found[prefix + name] = value if isinstance(value, bool | int | float | str) else str(value)
    return found


# -- services ---------------------------------------------------------------------------------------------------------


def _tensorboard(folder: Path, _: str) -> GeneralTracker:
    return TensorBoardTracker("tensorboard", str(folder))


def _wandb(folder: Path, name: str) -> GeneralTracker:
    """Offline, unless the environment says where to or how: `wandb sync` sends it later."""
    options = {"name": name}
    if "WANDB_DIR" not in os.environ:
        options["dir"] = str(folder)
    if not any(variable in os.environ for variable in ("WANDB_MODE", "WANDB_API_KEY", "WANDB_BASE_URL")):
        options["mode"] = "offline"
    return WandBTracker(os.environ.get("WANDB_PROJECT", PROJECT), **options)


def _mlflow(folder: Path, name: str) -> GeneralTracker:
    """In a database of its own, unless the environment names a server."""
    if "MLFLOW_TRACKING_URI" in os.environ:
        return MLflowTracker(PROJECT, run_name=name)
    place = folder.absolute() / "mlflow"
    place.mkdir(exist_ok=True)
    import_module("mlflow").set_tracking_uri(f"sqlite:///{place}/mlflow.db")
    return MLflowTracker(PROJECT, logging_dir=(place / "artifacts").as_uri(), run_name=name)


@dataclass(frozen=True)
class _Kind:
    """A service: the module that must be there, the package that has it, and how it is opened (folder, run's name)."""

    module: str
    package: str
    open: Callable[[Path, str], GeneralTracker]


_SERVICES: Final[Mapping[str, _Kind]] = {
    "tensorboard": _Kind("torch.utils.tensorboard", "tensorboard", _tensorboard),
    "wandb": _Kind("wandb", "wandb", _wandb),
    "mlflow": _Kind("mlflow", "mlflow", _mlflow),
}


def _require(service: str, kind: _Kind) -> None:
    try:
        import_module(kind.module)
    except ImportError as error:
        raise BuildError(
            f"the recipe's track names {service}, which cannot be imported: {error}",
            hint=f"pip install {kind.package}, or take {service} out of track",
        ) from None
