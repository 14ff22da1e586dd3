"""Learning from the corpus, or from text that the student writes: which is better in the same time, for prose and for chat.

    python -m tests.benchmarks.on_policy [--quick] [--json FILE] [--kind KIND] [--seeds 1] [--tokens 128k] [--work FOLDER]

SmolLM2-135M is distilled into a student of 101M parameters on a little text, off policy. From there each way goes on for as
many CPU seconds as `forward_kl` off policy takes for `--tokens`: how fast a way is, its first steps tell. Prose is Wikipedia;
for chat the AnsNet writes conversations, both sides of them (Magpie, arXiv 2406.08464). No training measures itself, so that
its end counts even where it is worse than its start.

All figures are nats per token. On held-out text: the loss, and KL(teacher || student). On text that the student itself writes
from held-out prompts: KL(student || teacher), KL(teacher || student), and what the text costs its teacher, which is lower the
better it reads to it. A student with no exposure bias is as near to its teacher on its own text as on that of the corpus.

What is finished stays in FOLDER, also the trainings' checkpoints, so that a run that was stopped goes on. `--quick` has a
thirtieth of the tokens, two ways and short periods, and takes some minutes.
"""

from __future__ import annotations

import argparse
import functools
import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from colbuild.run.process.environment import prepare_process
from colbuild.units import parse_count
from tests.benchmarks.harness import Bar, Result, at_most, run_kept_benchmark
from tests.benchmarks.on_policy_bench import KINDS, Bench, Setting

COMMAND: Final = "python -m tests.benchmarks.on_policy"
OFF: Final = "off policy, forward_kl"
_REVERSE: Final = {"type": "reverse_kl"}
WAYS: Final[Mapping[str, Mapping[str, Any]]] = {
    OFF: {},
    "off policy, reverse_kl": {"loss": _REVERSE},
    "on policy 0.5, forward_kl": {"on_policy": {"share": 0.5}},
    "on policy 0.5, jsd": {"on_policy": {"share": 0.5}, "loss": {"type": "jsd"}},
    "on policy 0.5, reverse_kl": {"on_policy": {"share": 0.5}, "loss": _REVERSE},
    "on policy 1.0, reverse_kl": {"on_policy": {"share": 1.0}, "loss": _REVERSE},
}
QUICK: Final = (OFF, "on policy 0.5, reverse_kl")


@dataclass(frozen=True)
class Run:
    """One training of the comparison."""

    kind: str
    way: str
    seed: int

    @property
    def name(self) -> str:
        """A name for files."""
        return f"{self.kind}, {self.way}, seed {self.seed}"


def measure(setting: Setting, kinds: tuple[str, ...], ways: tuple[str, ...]) -> Result:
    """Trains and scores what is not yet in the work folder."""
    prepare_process()
    bench, rows = Bench(setting), []
    for kind in kinds:
        rows.append(_row(kind, "the AnsNet", [bench.teacher_scores(kind)]))
        rows.append(_row(kind, "the start", [_kept(bench, Run(kind, "the start", 0), {})]))
        for way in ways:
            found = [_kept(bench, Run(kind, way, seed), WAYS[way]) for seed in range(setting.seeds)]
            rows.append(_row(kind, way, found))
    return Result(tuple(rows), tuple(_bars(rows, kinds)))


def _kept(bench: Bench, run: Run, changes: Mapping[str, Any]) -> dict[str, float]:
    """The scores of a training, which are kept as soon as they are known."""
    path = bench.setting.work / "scores" / f"{bench.setting.name}, {run.name}.json"
    if not path.exists():
        print(f"{run.name} …", file=sys.stderr, flush=True)
        path.parent.mkdir(exist_ok=True)
        if run.way == "the start":
            found = bench.scores(run.kind, bench.start(run.kind))
        else:
            base = bench.rate(run.kind, WAYS[OFF], run.seed)
            tokens = round(bench.setting.tokens * base / bench.rate(run.kind, changes, run.seed))
            trained = bench.trained(run.kind, {**changes, "tokens": tokens, "seed": run.seed}, run.name)
            found = {"tokens": tokens, "cpu": trained.seconds, **bench.scores(run.kind, trained.folder)}
        path.write_text(json.dumps(found) + "\n", encoding="utf-8")
    scores: dict[str, float] = json.loads(path.read_text(encoding="utf-8"))
    return scores


def _row(kind: str, way: str, found: list[dict[str, float]]) -> dict[str, Any]:
    def mean(name: str, digits: int) -> float | None:
        values = [each[name] for each in found if name in each]
        return round(sum(values) / len(values), digits) if values else None

    tokens, cpu = mean("tokens", 0), mean("cpu", 1)
    return {
        "text": kind,
        "way": way,
        "tokens": None if tokens is None else int(tokens),
        "CPU s": cpu,
        "held-out loss": mean("loss", 4),
        "held-out KL": mean("kl", 4),
        "own text: KL(student || teacher)": mean("own_reverse", 4),
        "own text: KL(teacher || student)": mean("own_forward", 4),
        "own text: cost to the teacher": mean("own_cost", 4),
        "own text: tokens": mean("own_length", 1),
        "of each seed": ", ".join(f"{each['own_reverse']:.3f}" for each in found if "own_reverse" in each),
    }


def _bars(rows: list[dict[str, Any]], kinds: tuple[str, ...]) -> list[Bar]:
    """How the best on-policy way compares with the best off-policy one; no issue sets a number, so equal is the bar."""
    bars = []
    for kind in kinds:
        for column, told in (
            ("own text: KL(student || teacher)", "KL(student || teacher) on the student's text"),
            ("held-out KL", "KL(teacher || student) on held-out text"),
        ):
            on, off = (
                min(row[column] for row in rows if row["text"] == kind and row["way"].startswith(policy))
                for policy in ("on", "off")
            )
            bars.append(at_most(f"{kind}: {told}, best on policy above best off policy, nats", on - off, 0.0))
    return bars


def _options() -> argparse.Namespace:
    """Options of this benchmark alone; the others are left in `sys.argv`."""
    parser = argparse.ArgumentParser(prog=COMMAND, add_help=False)
    parser.add_argument("--kind", choices=KINDS)
    parser.add_argument("--seeds", type=int)
    parser.add_argument("--tokens", type=parse_count)
    found, sys.argv[1:] = parser.parse_known_args()
    return found


def _run(options: argparse.Namespace, quick: bool, work: Path) -> Result:
    setting = Setting(work, options.seeds or 1, options.tokens or (4_096 if quick else 128_000), 2 if quick else 8)
    kinds = (options.kind,) if options.kind else KINDS
    return measure(setting, kinds, QUICK if quick else tuple(WAYS))


if __name__ == "__main__":
    chosen = _options()
    asked = " ".join(f"--{name} {value}" for name, value in vars(chosen).items() if value is not None)
    run_kept_benchmark(
        "on_policy" + (f", {chosen.kind}" if chosen.kind else ""),
        f"{COMMAND} {asked}".rstrip(),
        functools.partial(_run, chosen),
        ("torch", "transformers"),
    )
