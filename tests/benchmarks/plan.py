"""How long planning takes: start-up, plans of many steps, and beside them DVC and Snakemake on as many no-op stages.

CPU seconds of whole processes, the best of a few runs. A plan is taken fresh (nothing built) and of a finished family
(nothing to do), whose store is filled with records here, without building. The first plan of a fresh family on a machine also
measures that machine, once: it has a row of its own, with a cache folder that is new in each run, and all other plans find the
speed remembered. Every anchor is needed, but for a row in which one can be spared: only then is there a route to search, unless
a lock pins it, and networkx to import.

The stages of the other two have one input and one output each, all up to date. Both are installed into an environment of their
own, if an index is to be had; it can be kept for the next time with COLBUILD_BENCHMARK_PEERS=FOLDER.

    python -m tests.benchmarks.plan [--quick] [--json FILE]
"""

from __future__ import annotations

import hashlib
import json
import os
import resource
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import colbuild as api
from colbuild.plan.cost.machine import CACHE_VARIABLE
from colbuild.plan.drawing.keys import action_key
from colbuild.plan.lock.locked_sources import sources_of
from colbuild.store import ActionRecord
from colbuild.store.durable_files import write_json
from colbuild.store.records import record_to_json
from tests.benchmarks.harness import Bar, Result, at_most, run_benchmark
from tests.helpers.configs import SMOLLM2
from tests.plan.families import project

REPOSITORY = Path(__file__).parents[2]
PEERS = ("dvc", "snakemake")
PEER_FOLDER = "COLBUILD_BENCHMARK_PEERS"
ANCHORS = "".join(f"    - {{name: a{size}, params: {size}M}}\n" for size in (110, 90, 70, 56))
SPARED = "    - {name: a40, params: 40M}\n    - {name: a30, params: 30M}\n"
"""Two more anchors. A DesNet that equals the smaller one needs it; the route may pass the other, or not."""
HUNDRED_STEPS = 30
"""DesNets of the family whose plan has about a hundred steps."""


def measure(quick: bool) -> Result:
    """All rows: colbuild's, then those of the others on as many stages."""
    runs = 1 if quick else 3
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        cache = root / "cache"
        help_seconds = cpu_seconds([sys.executable, "-m", "colbuild", "--help"], root, cache, runs)
        rows = [_row("colbuild --help", None, help_seconds)]
        fresh: dict[int, float] = {}
        for desnets in (HUNDRED_STEPS, 250, 500, 1000):
            place = root / f"family{desnets}"
            family(place, desnets)
            plan = [sys.executable, "-m", "colbuild", "plan"]
            if desnets == HUNDRED_STEPS:
                first = min(cpu_seconds(plan, place, cache / str(run), 1) for run in range(runs))
                cpu_seconds(plan, place, cache, 1)
            fresh[desnets] = cpu_seconds(plan, place, cache, runs)
            steps = _fill(place)
            if desnets == HUNDRED_STEPS:
                rows.append(_row("the first plan on a machine, which measures it", steps, first))
            rows.append(_row(f"colbuild plan, {desnets} DesNets, nothing built", steps, fresh[desnets]))
            done = cpu_seconds(plan, place, cache, runs)
            rows.append(_row(f"colbuild plan, {desnets} DesNets, nothing to do", steps, done))
            if desnets == HUNDRED_STEPS:
                spared = root / "spared"
                family(spared, desnets, SPARED, "  - {name: tiny, params: 30M}\n")
                search = cpu_seconds(plan, spared, cache, runs)
                what = f"colbuild plan, {desnets} DesNets and an anchor to spare, nothing built"
                rows.append(_row(what, _fill(spared), search))
                hundred = max(fresh[desnets], done)
        python = peers_folder(root)
        for stages in (100, 500) if quick else (100, 500, 2000):
            rows += [
                _row(f"{name}, no-op stages", stages, peer_seconds(name, python, root, stages, cache, runs))
                for name in PEERS
            ]
    growth = (fresh[1000] - fresh[500]) / (fresh[500] - fresh[250]) / 2
    bars = (
        at_most("CPU seconds of --help", help_seconds, 0.25),
        at_most("CPU seconds of plan, about 100 steps", hundred, 0.6),
        at_most("CPU seconds of plan, about 100 steps and a route to choose", search, 0.8),
        at_most("CPU seconds of plan, 1,000 DesNets, as many as a family may have", fresh[1000], 4.0),
        at_most("time for each DesNet from 500 to 1,000, against that from 250 to 500", growth, 1.3),
        _no_torch(),
    )
    return Result(tuple(rows), bars)


def _row(what: str, steps: int | None, seconds: float | None) -> dict[str, Any]:
    told = "not installed" if seconds is None else round(seconds, 3)
    return {"what": what, "steps": steps, "CPU seconds": told}


def cpu_seconds(command: Sequence[str], folder: Path, cache: Path, runs: int, *, threads: int | None = 1) -> float:
    """CPU seconds of a command with its children, which remembers the machine in `cache`: the best of several runs.

    Its libraries compute with `threads` threads; None: with as many as they like.
    """
    environment = {
        **os.environ,
        "PYTHONPATH": str(REPOSITORY),
        "DVC_NO_ANALYTICS": "1",
        CACHE_VARIABLE: str(cache),
    }
    for name in ("COLBUILD_STORE", "OMP_NUM_THREADS"):
        environment.pop(name, None)
    if threads is not None:
        environment["OMP_NUM_THREADS"] = str(threads)
    found = []
    for _ in range(runs):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        if done.returncode != 0:
            raise SystemExit(f"{' '.join(command)} failed:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
        found.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    return min(found)


def _no_torch() -> Bar:
    """How many of the modules that planning must not import were imported by a plan."""
    code = (
        "import sys; from colbuild.cli.app import run_command; run_command(['plan']); "
        "print(sum(name in sys.modules for name in ('torch', 'transformers', 'onnx', 'onnxruntime')))"
    )
    with tempfile.TemporaryDirectory() as folder:
        family(Path(folder), 3)
        environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), CACHE_VARIABLE: folder}
        done = subprocess.run(
            [sys.executable, "-c", code], cwd=folder, env=environment, capture_output=True, text=True, check=True
        )
    return at_most("heavy libraries that plan imports", float(done.stdout.split()[-1]), 0.0)


def family(root: Path, desnets: int, anchors: str = "", last: str = "") -> None:
    """A family around SmolLM2's shape; its AnsNet has no weights, since planning never reads them."""
    step = 75_000_000 // desnets
    lines = (f"  - {{name: d{i}, params: {57_000_000 + i * step}, exports: [phone-int8]}}\n" for i in range(desnets))
    project(root, anchors=ANCHORS + anchors, desnets="".join(lines) + last)
    (root / "ansnet").mkdir()
    (root / "ansnet/config.json").write_text(json.dumps(SMOLLM2))
    (root / "ansnet/tokenizer.json").write_text("{}")
    (root / "corpus.txt").write_text("some text\n" * 1_000_000)


def _fill(root: Path) -> int:
    """Notes every step as built, each with the same small result; returns how many there are."""
    loaded = api.load_family(root / "specs/family.yaml")
    workspace = api.open_workspace(loaded, root / ".colbuild")
    store = workspace.store
    plan = api.make_plan(loaded, workspace)
    sources = sources_of(loaded, store)
    store.prepare()
    with store.draft() as draft:
        (draft / "files/told").write_text("x")
        tree = store.publish(draft)
    scratch = store.layout.folder("tmp")
    for step in plan.graph.steps:
        inputs = dict.fromkeys(step.inputs, tree.digest) | {
            role: sources.digest(uri) or "" for role, uri in step.sources.items()
        }
        key = action_key(step.op, step.params, inputs)
        record = ActionRecord(
            key, step.id, step.op, step.params, inputs, tree.digest, size=1, seconds=1.0, built_at=0.0
        )
        for path in (store.layout.action(key), store.layout.step(loaded.family.name, step.id)):
            write_json(scratch, path, record_to_json(record))
    return len(plan.graph.steps)


# -- the others -------------------------------------------------------------------------------------------------------


def peers_folder(root: Path) -> Path | None:
    """The bin folder of an environment that holds DVC and Snakemake, made if need be; None if they cannot be had."""
    kept = os.environ.get(PEER_FOLDER)
    folder = Path(kept) if kept else root / "peers"
    if not (folder / "bin/python").exists():
        subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
        pip = [str(folder / "bin/python"), "-m", "pip", "install", "--quiet", *PEERS]
        if subprocess.run(pip, capture_output=True, check=False).returncode != 0:
            return None
    return folder / "bin"


def peer_seconds(name: str, bin_folder: Path | None, root: Path, stages: int, cache: Path, runs: int) -> float | None:
    if bin_folder is None or not (bin_folder / name).exists():
        return None
    folder = root / f"{name}{stages}"
    folder.mkdir()
    (folder / "in.txt").write_text("in\n")
    for stage in range(stages):
        (folder / f"out{stage}.txt").write_text("out\n")
    command = _dvc(folder, stages, bin_folder) if name == "dvc" else _snakemake(folder, stages)
    return cpu_seconds([str(bin_folder / name), *command], folder, cache, runs)


def _dvc(folder: Path, stages: int, bin_folder: Path) -> list[str]:
    """Stages whose lock says that they ran."""
    subprocess.run([bin_folder / "dvc", "init", "-q", "--no-scm"], cwd=folder, check=True, capture_output=True)

    def held(name: str) -> dict[str, Any]:
        content = (folder / name).read_bytes()
        md5 = hashlib.md5(content, usedforsecurity=False).hexdigest()
        return {"path": name, "hash": "md5", "md5": md5, "size": len(content)}

    written, locked = {}, {}
    for stage in range(stages):
        out = f"out{stage}.txt"
        written[f"s{stage}"] = {"cmd": "true", "deps": ["in.txt"], "outs": [{out: {"cache": False}}]}
        locked[f"s{stage}"] = {"cmd": "true", "deps": [held("in.txt")], "outs": [held(out)]}
    # JSON is YAML.
    (folder / "dvc.yaml").write_text(json.dumps({"stages": written}))
    (folder / "dvc.lock").write_text(json.dumps({"schema": "2.0", "stages": locked}))
    return ["repro", "--dry"]


def _snakemake(folder: Path, stages: int) -> list[str]:
    """Rules whose outputs are newer than their input."""
    os.utime(folder / "in.txt", (1_000_000_000, 1_000_000_000))
    rules = [f'rule all:\n    input: expand("out{{i}}.txt", i=range({stages}))\n']
    rules += [
        f'rule s{stage}:\n    input: "in.txt"\n    output: "out{stage}.txt"\n    shell: "true"\n'
        for stage in range(stages)
    ]
    (folder / "Snakefile").write_text("\n".join(rules))
    return ["-n", "--quiet", "all", "--rerun-triggers", "mtime"]


if __name__ == "__main__":
    run_benchmark(
        "plan", "python -m tests.benchmarks.plan", measure, ("networkx", "pydantic", "pyyaml", "rich", "typer")
    )
