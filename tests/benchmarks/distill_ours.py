"""colbuild's own operations as a build runs them: `teach`, `distill` and `evaluate`, each in a process of its own."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tests.benchmarks.distill_clock import Clock, job


def main(asked: dict[str, Any]) -> None:
    """Runs the operation that is asked for."""
    from colbuild.run.process.environment import prepare_process
    from colbuild.run.process.spinning import let_threads_spin, watch

    let_threads_spin()
    prepare_process()
    import torch

    watch(torch.get_num_threads())
    from colbuild.progress import Progress
    from tests.helpers.steps import run_step

    clock = Clock()
    noted: dict[str, Any] = {}
    size = asked["batch"] * asked["sequence"]

    def report(progress: Progress) -> None:
        # Other work reports too: what is counted here is one more batch each time.
        if progress.unit == "tokens" and progress.done == (len(clock.ends) + 1) * size:
            clock.step(progress.metrics.get("loss", float("nan")))

    output = Path(asked["output"])
    output.mkdir(parents=True)
    run_step(
        asked["op"],
        {role: Path(path) for role, path in asked["inputs"].items()},
        asked["params"],
        output,
        report,
        settings=asked["settings"],
        compiled=Path(asked["compiled"]),
        note=noted.update,
    )
    (output / "noted.json").write_text(json.dumps(noted), encoding="utf-8")
    on_gpu = noted.get("device", "cpu") != "cpu"
    clock.tell(noted["peak_memory"] / 2**30 if on_gpu else None, mfu=noted.get("mfu"))


if __name__ == "__main__":
    main(job())
