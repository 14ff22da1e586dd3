"""How fast the AnsNet writes a corpus: many texts at once, beside one after the other as a user of transformers would.

`python -m tests.benchmarks.generate [--quick] [--json FILE]`. Needs the package index (or what pip is configured with).
SmolLM2-135M writes texts of at most 128 tokens: as many at once as the operation that a build runs, and one by one
by `model.generate` with its cache, both on the same threads. Rounds alternate; the median counts.
"""

from __future__ import annotations

import functools
import statistics
import time
from pathlib import Path
from typing import Any, Final

from colbuild.plan.steps.generate import GENERATED_AT_ONCE
from colbuild.run.process.environment import prepare_process
from tests.benchmarks.bridge_models import Bench
from tests.benchmarks.harness import Result, at_least, run_kept_benchmark

COMMAND: Final = "python -m tests.benchmarks.generate"
LENGTH: Final = 128
TOGETHER: Final = f"{GENERATED_AT_ONCE} at once"


def _run(quick: bool, work: Path) -> Result:
    prepare_process()
    import torch

    from colbuild.ops.shared.running_models import model_of, running_model
    from colbuild.ops.shared.text_writing import draw_texts
    from colbuild.train.loop.devices import forward_type
    from colbuild.weights.files.checkpoint import load_checkpoint

    folder = Bench(work, 0, 0).ansnet
    checkpoint = load_checkpoint(folder)
    ours, plain = running_model(checkpoint, forward_type(), torch.device("cpu")), model_of(checkpoint, forward_type())
    rates: dict[str, list[float]] = {TOGETHER: [], "one by one": []}
    for seed in range(1 if quick else 3):
        started = time.perf_counter()
        texts = draw_texts(ours, [[0]] * GENERATED_AT_ONCE, LENGTH, {0}, temperature=1.0, seed=seed)
        rates[TOGETHER].append(sum(len(text.ids) - 1 for text in texts) / (time.perf_counter() - started))
        torch.manual_seed(seed)
        started, count = time.perf_counter(), 0
        for _ in range(1 if quick else 3):
            found = plain.generate(
                torch.tensor([[0]]), max_new_tokens=LENGTH, do_sample=True, temperature=1.0, top_k=0, eos_token_id=0
            )
            count += found.shape[1] - 1
        rates["one by one"].append(count / (time.perf_counter() - started))
    rows: list[dict[str, Any]] = [
        {
            "texts": name,
            "tokens/s": round(statistics.median(every), 1),
            "of each round": ", ".join(f"{one:.1f}" for one in every),
        }
        for name, every in rates.items()
    ]
    together, alone = (statistics.median(every) for every in rates.values())
    return Result(
        tuple(rows), (at_least("tokens/s of texts side by side, times those of one by one", together / alone, 5.0),)
    )


if __name__ == "__main__":
    run_kept_benchmark("generate", COMMAND, functools.partial(_run), ("torch", "transformers"))
