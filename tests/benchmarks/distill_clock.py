"""What a training loop under measurement tells its parent. The standard library alone: it also runs where colbuild is not."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any


class Clock:
    """Notes when each optimiser step ended, by the machine's own clock, which parent and child share."""

    def __init__(self) -> None:
        self.ends: list[float] = []
        self.losses: list[float] = []

    def step(self, loss: float) -> None:
        """A step is done, its loss read back."""
        self.ends.append(time.monotonic())
        self.losses.append(loss)

    def tell(self, peak_gib: float | None = None, **figures: Any) -> None:
        """Prints all of it as one line of JSON; the last thing that a loop does.

        Args:
            peak_gib: The peak memory, where it is a GPU's; None: this process's.
            figures: Whatever else a loop has to tell.
        """
        peak = resident_gib() if peak_gib is None else peak_gib
        sys.stdout.write(
            "\n" + json.dumps({"ends": self.ends, "losses": self.losses, "peak_gib": peak, **figures}) + "\n"
        )


def resident_gib() -> float:
    """The most memory that this process has held. Not getrusage: its figure begins with that of the parent."""
    status = Path("/proc/self/status")
    if status.exists():
        for line in status.read_text(encoding="ascii", errors="replace").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) / 2**20
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**30


def job() -> dict[str, Any]:
    """What the parent asks for: the JSON file that is the only argument. Its allocator settings are made here."""
    asked: dict[str, Any] = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    if asked["keep_pages"]:
        # Before torch is imported, by the same calls as the product makes.
        from colbuild.process_memory import keep_pages

        if not keep_pages():
            raise SystemExit("this machine's allocator takes no settings")
    return asked
