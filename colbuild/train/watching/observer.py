"""Observes a training: reports readings, evaluates on held-out text, and sums up the ledger."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import torch

from colbuild.train.loop.training_state import State
from colbuild.train.watching.ledger import Ledger, training_ledger
from colbuild.train.watching.measure import HeldOut
from colbuild.train.watching.outcome import LEAST, Worsened, worsened
from colbuild.train.watching.tracking import Tracker

HELD_OUT_TOKENS: Final = 4096
"""Tokens that a training is measured on at its end, against its teacher."""

_COST: Final = 0.01
"""Tokens of a measurement during the training, as a share of those that it trains on: ten of them take some 3% of its time,
as what is measured runs forward only."""

Measure = Callable[[int, bool], HeldOut]
"""(tokens, at least one window of them; whether beside the teacher too) -> what the student is worth on them."""


class Observer:
    """Hears of each step of a training, in the main process.

    Attributes:
        latest: The last measurement on held-out text; None before there is one.
        worsened: Set at the end of a training that made its student worse than it began.
    """

    def __init__(
        self,
        tracker: Tracker,
        *,
        batch_tokens: int,
        steps: int,
        every: float,
        measure: Measure | None,
        student_forward: Callable[[int], float],
        least: float = LEAST,
    ) -> None:
        """Begins to watch.

        Args:
            tracker: Gets every reading.
            batch_tokens: Tokens of a step.
            steps: Steps in all.
            every: How often it measures, as a share of the steps; 0: at the end only.
            measure: Measures the student; None where there is no held-out text.
            student_forward: Step -> FLOPs of its forward passes for a token, the mean over its sequences.
            least: Nats per token by which its end may be worse than its start.
        """
        self.latest: HeldOut | None = None
        self.worsened: Worsened | None = None
        self._began: HeldOut | None = None
        self._tracker = tracker
        self._batch_tokens = batch_tokens
        self._steps = steps
        self._due = max(1, round(steps * every)) if every else steps
        self._measure = measure
        self._student_forward = student_forward
        self._least = least
        self._seconds = 0.0
        self._timed = 0

    def begin(self) -> None:
        """Measures the student before its first step, whether or not the training goes on from a later one."""
        if self._measure is not None:
            self._began = self._measure(HELD_OUT_TOKENS, False)

    def __call__(self, state: State, seconds: float) -> None:
        """Hears of a step that took so long."""
        self._seconds += seconds
        self._timed += 1
        speed = self._batch_tokens / seconds if seconds > 0 else 0.0
        self._tracker.reading(state.readings[-1], tokens_per_second=speed, seconds=self._seconds)
        if state.step % self._due == 0 and state.step < self._steps:
            self._take(state, round(_COST * self._steps * self._batch_tokens))

    def finish(
        self,
        state: State,
        *,
        go_back: Callable[[], None],
        teacher_forward: int,
        device: torch.device,
        devices: int,
        writing: int = 0,
    ) -> Ledger:
        """Measures a training that is over, takes it back where it did harm, and adds up what it took.

        Args:
            state: Its end.
            go_back: Brings the student to where it began.
            teacher_forward: FLOPs of the teacher's forward pass for a token; 0 where it was read from a cache.
            device: Where this process computed.
            devices: How many like it worked together.
            writing: FLOPs of what the student wrote.
        """
        self._take(state, HELD_OUT_TOKENS)
        self.worsened = worsened(self._began, self.latest, self._least)
        if self.worsened is not None:
            go_back()
            self._take(state, HELD_OUT_TOKENS)
        forward = sum(self._student_forward(step) for step in range(self._steps)) / self._steps
        return training_ledger(
            tokens=self._steps * self._batch_tokens,
            timed_tokens=self._timed * self._batch_tokens,
            seconds=self._seconds,
            teacher_forward=teacher_forward,
            student_forward=forward,
            writing=writing,
            device=device,
            devices=devices,
            final_loss=state.readings[-1].loss,
            heldout_loss=None if self.latest is None else self.latest.loss,
            kl_to_teacher=None if self.latest is None else self.latest.kl,
            given_up=None if self.worsened is None else self.worsened.end,
        )

    def _take(self, state: State, tokens: int) -> None:
        """Measures the student, where there is text to do it on."""
        if self._measure is not None:
            self.latest = self._measure(min(tokens, HELD_OUT_TOKENS), True)
            self._tracker.held_out(state.step, self.latest)
