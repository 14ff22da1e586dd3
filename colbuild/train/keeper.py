"""When a training writes its state down, and how it is stopped: between two steps, never inside one."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from colbuild.errors import StoppedError
from colbuild.train.state import State, restore, save


@dataclass(frozen=True)
class Keeping:
    """What may interrupt a training, and what it keeps for that case.

    Attributes:
        folder: Where checkpoints go; nothing else lies there. None: nothing is kept.
        every: Seconds between two of them.
        stopping: Asked between two steps; a training that shall stop writes a checkpoint first.
    """

    folder: Path | None = None
    every: float = 300.0
    stopping: Callable[[], bool] = lambda: False


class Keeper:
    """Keeps the state of one training on the disk, and stops it where that is asked for.

    Attributes:
        trouble: Why the last checkpoint could not be written; empty once one can. A full disk alone ends no training.
    """

    def __init__(self, keeping: Keeping, steps: int) -> None:
        self.trouble = ""
        self._keeping = keeping
        self._steps = steps
        self._kept = 0
        self._due = time.monotonic() + keeping.every

    def resume(self, state: State) -> None:
        """Brings a state that is about to begin to where the newest sound checkpoint was written, if there is one."""
        if self._keeping.folder is not None:
            restore(state, self._keeping.folder, self._steps)
        self._kept = state.step

    def between(self, state: State) -> None:
        """To be called before each step: writes a checkpoint where one is due.

        Raises:
            StoppedError: The training shall stop; what it goes on from is on the disk, as far as the disk takes it.
        """
        stopping = self._keeping.stopping()
        if stopping or time.monotonic() >= self._due:
            self._keep(state)
        if stopping:
            raise self._stopped(state)

    def _keep(self, state: State) -> None:
        folder = self._keeping.folder
        if folder is None or state.step == self._kept:
            return
        try:
            save(state, folder)
        except OSError as error:
            self.trouble = (error.strerror or str(error)).lower()
        else:
            self._kept, self.trouble = state.step, ""
        # From the end of writing: however slow the disk is, training goes on in between.
        self._due = time.monotonic() + self._keeping.every

    def _stopped(self, state: State) -> StoppedError:
        lost = f"; the checkpoint could not be written: {self.trouble}" if self.trouble else ""
        onward = f"goes on with step {self._kept + 1}" if self._kept else "starts anew"
        return StoppedError(
            f"stopped after step {state.step} of {self._steps}{lost}", hint=f"build again: the training {onward}"
        )
