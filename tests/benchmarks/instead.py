"""What a user would do instead of a family: models of the same sizes by other ways, and the AnsNet rounded to fewer bits.

`python -m tests.benchmarks.instead [--quick] [--json FILE] [--work FOLDER] [--lab smollm2|stories] [--tokens 64k] [--sizes 8]
[--text 1M] [--regime FOLDER] [--only WAY]`. `smollm2` is SmolLM2-135M with prose of enwik8, and needs the package index.
`stories` is stories15M, in the folder that COLBUILD_BENCH_STORIES names, with `--text` tokens that it wrote itself, as in
`regime`; `--regime` names the work folder of that benchmark, where such text may lie already.

Every way is a family's file in `FOLDER/<lab>/project`, built by `colbuild build` in one store. What is finished is kept, a
training that was stopped goes on, and each is made once. `--only` builds the ways whose names begin so, and prints no table.

| way | models of all sizes |
|---|---|
| colbuild | 2 anchors of `--tokens` each, DesNets by the default interpolation |
| colbuild: N anchors | the same sum of tokens in 1, 3 or 4 anchors |
| distilled directly | each from the AnsNet, on as many tokens as an anchor; every other size on a half and a quarter too |
| pruned, not trained | cut out of the ordered AnsNet |
| from scratch | the middle size from random weights: steps of 16,384 tokens, AdamW, cosine, the better of two rates |
| the paper's interpolation | between the same anchors: zero fill, alpha by distance |
| Boomerang patching | between two anchors that lack layers only |
| one nested run | all sizes trained in one run, on as many tokens as both anchors |

Packages and their speed are measured for colbuild's models and the AnsNet: a model's package depends on its shape alone, so the
other ways' have the same bytes and speed. Bits per byte are of the model, and for packages of the package.
"""

from __future__ import annotations

import argparse
import functools
import json
import shutil
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from colbuild.units import parse_count
from tests.benchmarks import instead_families as families
from tests.benchmarks import regime_lab
from tests.benchmarks.harness import Result, run_kept_benchmark
from tests.benchmarks.instead_families import Budget, Built, Laboratory
from tests.benchmarks.instead_tables import Row, Scored, bars, frontier, rows_of, scratch_note
from tests.benchmarks.project import colbuild, make_project

COMMAND: Final = "python -m tests.benchmarks.instead"
LABS: Final = ("smollm2", "stories")
QUICK: Final = Budget(4_096, 3, (0.5, 1.0), (1, 2), (32_768,), (1e-3,), ("int8", "4 bits in all"))


@dataclass(frozen=True)
class Bench:
    """Where families are built and packages are measured.

    Attributes:
        lab: The AnsNet, its text and the sizes.
        budget: How much is done.
        folder: Where all of it lies.
    """

    lab: Laboratory
    budget: Budget
    folder: Path

    @property
    def project(self) -> Path:
        """The project of all families."""
        return self.folder / "project"

    def scored(self, built: Built) -> Scored:
        """Builds a family, unless its figures are kept."""
        kept = self.folder / "scores" / f"{built.name}.json"
        said = json.dumps(built.spec)
        if kept.exists() and (found := json.loads(kept.read_text(encoding="utf-8")))["spec"] == said:
            return Scored.of(built, found)
        print(f"{self.lab.name}: {built.name} …", file=sys.stderr, flush=True)
        spec = families.write(self.project, self.lab, built)
        # Asked before it is built, since it does not depend on what is in the store.
        reads = json.loads(colbuild(self.project, "plan", spec, "--json"))["ansnet_reads"]
        colbuild(self.project, "build", spec, "--json")
        status = json.loads(colbuild(self.project, "status", spec, "--json"))
        found = {"spec": said, "flops": (reads or {"flops": 0})["flops"], "models": status["models"]}
        kept.parent.mkdir(exist_ok=True)
        kept.write_text(json.dumps(found) + "\n", encoding="utf-8")
        return Scored.of(built, found)

    def speeds(self, scored: Scored) -> dict[str, float]:
        """Package -> tokens that it generates in a second, with one thread."""
        kept = self.folder / "scores" / "speeds.json"
        found: dict[str, float] = json.loads(kept.read_text(encoding="utf-8")) if kept.exists() else {}
        for model in scored.models.values():
            for package in model["packages"]:
                name = f"{model['name']}/{package['profile']}"
                if name not in found:
                    told = colbuild(self.project, "bench", package["folder"], "--threads", "1", "--json")
                    found[name] = json.loads(told)["rows"][0]["decode_tps"]
                    kept.write_text(json.dumps(found) + "\n", encoding="utf-8")
        return found

    def random_start(self, shape: Mapping[str, int]) -> str:
        """A model of random weights, of the AnsNet's kind: written once; returns its source."""
        made = self.project / "scratch"
        if not (made / "model.safetensors").exists():
            from transformers import AutoConfig, AutoModelForCausalLM, set_seed

            ansnet = self.project / "out/ours/ansnet/checkpoint"
            config = AutoConfig.from_pretrained(ansnet)
            config.num_hidden_layers, config.intermediate_size = shape["layers"], shape["ffn"]
            config.hidden_size = shape["hidden"]
            config.num_attention_heads, config.num_key_value_heads = shape["heads"], shape["kv_heads"]
            set_seed(0)
            AutoModelForCausalLM.from_config(config).save_pretrained(made)
            for file in ansnet.glob("*token*"):
                shutil.copy(file, made)
        return "./scratch"


def measure(bench: Bench, only: str | None) -> Result:
    """Builds what is not built yet, and puts all together."""
    wanted = functools.partial(_wanted, only)
    ours = bench.scored(families.ours(bench.lab, bench.budget))
    speeds = bench.speeds(ours) if wanted("ours") else {}
    found = [ours, *(bench.scored(built) for built in _others(bench) if wanted(built.name))]
    if wanted("scratch"):
        found += _from_scratch(bench, ours)
    if only is not None:
        return Result((), ())
    rows = [*rows_of(found, speeds, bench.budget)]
    rows += frontier(rows, found)
    notes = [note for note in (plot(rows), scratch_note(found, bench.budget)) if note]
    return Result(tuple(row.told() for row in rows), bars(found, bench.budget.sizes), tuple(notes))


def _wanted(only: str | None, name: str) -> bool:
    return only is None or name.startswith(only)


def _others(bench: Bench) -> Iterator[Built]:
    lab, budget = bench.lab, bench.budget
    yield families.pruned(lab, budget)
    yield families.paper(lab, budget)
    for share in sorted(budget.shares):
        for place in families.direct_places(budget, share):
            yield families.direct(lab, budget, place, round(share * budget.tokens))
    yield families.nested(lab, budget)
    yield families.patched(lab, budget)
    yield from (families.anchored(lab, budget, count) for count in budget.anchors if count != 2)


def _from_scratch(bench: Bench, ours: Scored) -> list[Scored]:
    """Trainings of the middle size: each rate on the fewest tokens, the better one on all others."""
    lab, budget = bench.lab, bench.budget
    shape = ours.models[f"d{budget.sizes // 2}"]["shape"]
    asked = {key: shape[key] for key in ("layers", "ffn")}
    start = bench.random_start(shape)
    first = [
        bench.scored(families.scratch(lab, budget, asked, start, budget.scratch[0], rate)) for rate in budget.rates
    ]
    best = min(range(len(first)), key=lambda index: first[index].models["d"]["bits_per_byte"])
    later = [families.scratch(lab, budget, asked, start, tokens, budget.rates[best]) for tokens in budget.scratch[1:]]
    return [*first, *(bench.scored(built) for built in later)]


def plot(rows: Sequence[Row]) -> str:
    """Bits per byte by MB: A the AnsNet in fewer bits, c colbuild's packages."""
    points = [row for row in rows if row.size and row.package_bits and row.table == "ways"]
    if not points:
        return ""
    width, height = 72, 16
    sizes, bits = [row.size or 0.0 for row in points], [row.package_bits or 0.0 for row in points]
    grid = [[" "] * (width + 1) for _ in range(height + 1)]
    for row, size, value in zip(points, sizes, bits, strict=True):
        across = round((size - min(sizes)) / max(max(sizes) - min(sizes), 1e-9) * width)
        down = round((max(bits) - value) / max(max(bits) - min(bits), 1e-9) * height)
        grid[down][across] = "A" if row.way == "the AnsNet" else "c"
    lines = ["".join(line).rstrip() for line in grid]
    below = f"{min(sizes):.1f} MB".ljust(width - 8) + f"{max(sizes):.1f} MB"
    above = f"bits per byte, {max(bits):.3f} above to {min(bits):.3f} below; A the AnsNet rounded, c colbuild"
    return "\n".join(["```", above, *lines, below, "```"])


def _laboratory(options: argparse.Namespace, work: Path, project: Path) -> Laboratory:
    if options.lab == "smollm2":
        return families.PROSE
    # The same model and text as in `regime`, in the same folders: text is written once.
    found = regime_lab.lab("stories", options.regime or work, options.text)
    inputs = project / "inputs"
    if not inputs.exists():
        shutil.copytree(regime_lab.story_teller_files(found.folder), inputs / "ansnet")
        shutil.copytree(found.folder / f"text-{options.text}", inputs / "text")
    return families.stories("./inputs/ansnet", {"source": "./inputs/text", "heldout": regime_lab.HELDOUT})


def _options(arguments: Iterable[str]) -> tuple[argparse.Namespace, list[str]]:
    """Options of this benchmark alone, and the others."""
    parser = argparse.ArgumentParser(prog=COMMAND, add_help=False)
    parser.add_argument("--lab", choices=LABS, default=LABS[0])
    parser.add_argument("--tokens", type=parse_count)
    parser.add_argument("--sizes", type=int)
    parser.add_argument("--text", type=parse_count, default=1_000_000)
    parser.add_argument("--regime", type=Path)
    parser.add_argument("--only")
    return parser.parse_known_args(list(arguments))


def _run(options: argparse.Namespace, quick: bool, work: Path) -> Result:
    budget = QUICK if quick else Budget()
    budget = replace(budget, tokens=options.tokens or budget.tokens, sizes=options.sizes or budget.sizes)
    folder = work / options.lab
    make_project(folder / "project")
    return measure(Bench(_laboratory(options, work, folder / "project"), budget, folder), options.only)


if __name__ == "__main__":
    chosen, sys.argv[1:] = _options(sys.argv[1:])
    said = " ".join(f"--{key} {value}" for key, value in vars(chosen).items() if value is not None)
    run_kept_benchmark(
        f"instead, {chosen.lab}", f"{COMMAND} {said}", functools.partial(_run, chosen), ("torch", "onnxruntime")
    )
