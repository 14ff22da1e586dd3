"""Checkpoints of a training, and its stops and setbacks: between two steps, never inside one.

Checkpoints are written by the clock, so which of them exist says nothing about the result. Where a divergence takes a training
back to must not depend on the clock: that is a milestone, one of the quarters of its steps, or the beginning.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from colbuild.errors import StoppedError, system_reason
from colbuild.train.loop.training_state import Setback, State, restore, save

_QUARTERS: Final = (0.25, 0.5, 0.75)
_FEW: Final = 40
"""Steps below which there are no milestones: so short a training is begun again."""


def milestones(steps: int) -> frozenset[int]:
    """After which steps a training of so many can be taken up again when it diverges later."""
    return frozenset() if steps < _FEW else frozenset(round(steps * quarter) for quarter in _QUARTERS)


@dataclass(frozen=True)
class Keeping:
    """The interruptions of a training, and its checkpoints.

    Attributes:
        folder: Where checkpoints go; nothing else lies there. None: nothing is kept.
        every: Seconds between two of them.
        stopping: Asked between two steps; a training that shall stop writes a checkpoint first.
        writes: Whether this process writes checkpoints; of several that train together one does.
    """

    folder: Path | None = None
    every: float = 300.0
    stopping: Callable[[], bool] = lambda: False
    writes: bool = True


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
        self._milestones = milestones(steps)
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
        if stopping or time.monotonic() >= self._due or state.step in self._milestones:
            self._keep(state)
        if stopping:
            raise self._stopped(state)

    def take_back(self, state: State, reason: str, begin: Callable[[], None]) -> None:
        """Brings a state whose next step must not be taken to the last milestone, or to the beginning.

        Args:
            state: Gets a setback.
            reason: What is wrong with the step.
            begin: Brings the weights to where they began.
        """
        failed = state.step
        state.readings.clear()
        state.optimizer.state.clear()
        state.texts = None
        begin()
        if self._keeping.folder is not None:
            restore(state, self._keeping.folder, self._steps, self._milestones)
        state.setback = Setback(failed, reason, state.step)
        self._kept = 0

    def _keep(self, state: State) -> None:
        folder = self._keeping.folder
        if folder is None or not self._keeping.writes or state.step == self._kept:
            return
        try:
            save(state, folder, self._milestones)
        except OSError as error:
            self.trouble = system_reason(error)
        else:
            self._kept, self.trouble = state.step, ""
        # From the end of writing: however slow the disk is, training goes on in between.
        self._due = time.monotonic() + self._keeping.every

    def _stopped(self, state: State) -> StoppedError:
        lost = f"; the checkpoint could not be written: {self.trouble}" if self.trouble else ""
        onward = f"continues with step {self._kept + 1}" if self._kept else "starts again"
        return StoppedError(
            f"stopped after step {state.step} of {self._steps}{lost}", hint=f"build again: the training {onward}"
        )
