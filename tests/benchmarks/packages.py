"""Packages of SmolLM2-135M-Instruct and of a DesNet in every form: size, perplexity, speed, and what exporting them takes.

`python -m tests.benchmarks.packages [--quick] [--work FOLDER] [--json FILE]`. Needs the package index (or what pip is
configured with). fp32 is the baseline; all forms are measured in turns on the same held-out text, with onnxruntime
alone. "int4, by hand" keeps 8 bits in the first and last layer and the down projections; "int4-mixed, as large" has
as much room, to spend as it measures. "recovered" is trained to be rounded (`recover`), which is not among the
seconds of its export. The DesNet is distilled for this. `--quick` leaves it out, with all that is recovered or of
standard operators. `packages_rivals` compares speeds with what other runtimes build.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from colbuild.export.runtime.running import Package, generate, open_package
from colbuild.export.runtime.session import Decoder, feed, in_pieces
from colbuild.train.corpus.packing import open_corpus
from colbuild.train.corpus.text_windows import evaluation_documents
from tests.benchmarks.harness import Bar, Result, at_least, at_most, run_kept_benchmark
from tests.benchmarks.packages_models import Model, costs_file, folder_size, make_package, measure_each

COMMAND = "python -m tests.benchmarks.packages"
RECOVERED = 65_536
"""Tokens that "recovered" is trained on."""
PROMPT = "Write a long story about a lamp, a ship and a tower by the sea."


def forms_of(model: Model, quick: bool) -> dict[str, dict[str, Any]]:
    """Profiles by the name of their form."""
    limits = {"max_package": model.room}
    forms: dict[str, dict[str, Any]] = {
        "fp32": {"precision": "fp32"},
        "int8": {"precision": "int8"},
        "int4": {"precision": "int4"},
        "int4-mixed": {"precision": "int4-mixed", "limits": limits},
        "int4, by hand": {"precision": "int4", "keep_8bit": ["first", "last", "down"]},
    }
    if quick:
        return forms
    return forms | {
        "int4-mixed, recovered": {
            "precision": "int4-mixed",
            "limits": limits,
            "calibration": 8192,
            "recover": {"tokens": RECOVERED},
        },
        "int8, standard operators": {"precision": "int8", "operators": "standard"},
        "int4, standard operators": {"precision": "int4", "operators": "standard"},
    }


def measure(quick: bool, folder: Path) -> Result:
    """Measures the models one after the other."""
    return measure_each(quick, folder, lambda model: _measure(model, quick))


def _measure(model: Model, quick: bool) -> Result:
    """Exports every form of a model and measures it."""
    tokens, new_tokens, rounds = (1000, 32, 1) if quick else (8000, 96, 3)
    packages = {name: make_package(model, name, profile) for name, profile in forms_of(model, quick).items()}
    large = {"precision": "int4-mixed", "limits": {"max_package": folder_size(packages["int4, by hand"])}}
    packages["int4-mixed, as large"] = make_package(model, "int4-mixed, as large", large)
    again = make_package(model, "int4 again", {"precision": "int4"})
    losses = {
        form: loss_of(open_package(each, threads=2).decoder, model.corpus, tokens) for form, each in packages.items()
    }
    speeds: dict[tuple[str, int], list[float]] = {}
    for threads in (1, 2):
        for form in [form for _ in range(rounds) for form in packages]:
            speed = _speed(open_package(packages[form], threads=threads), new_tokens)
            speeds.setdefault((form, threads), []).append(speed)
    rows = tuple(
        {
            "model": model.name,
            "form": form,
            "package MB": round(folder_size(package) / 1e6, 1),
            "perplexity": math.exp(losses[form]),
            "of fp32's": math.exp(losses[form] - losses["fp32"]),
            "decode tokens/s, 1 thread": float(np.median(speeds[form, 1])),
            "decode tokens/s, 2 threads": float(np.median(speeds[form, 2])),
            **_costs(package),
            **_parity(package),
        }
        for form, package in packages.items()
    )
    same = [(each / "onnx/model_q4.onnx").read_bytes() for each in (packages["int4"], again)]
    return Result(rows, tuple(_bars(model, {row["form"]: row for row in rows}, same[0] == same[1])))


def _bars(model: Model, found: dict[str, dict[str, Any]], same: bool) -> Iterator[Bar]:
    def told(what: str) -> str:
        return f"{model.name}, {what}"

    fp32, int8, mixed = (found[name] for name in ("fp32", "int8", "int4-mixed"))
    yield at_most(told("fp32: largest difference of a logit from PyTorch's"), fp32["largest difference"], 1e-3)
    if model.name == "135M":
        yield at_most(told("int8: package, MB"), int8["package MB"], 155.0)
    yield at_most(told("int8: perplexity over fp32's"), int8["of fp32's"], 1.01)
    room = float(model.room.removesuffix("MB"))
    yield at_most(told("int4-mixed: package, MB"), mixed["package MB"], room)
    yield at_most(told("int4-mixed: perplexity over fp32's"), mixed["of fp32's"], 1.10)
    if (recovered := found.get("int4-mixed, recovered")) is not None:
        yield at_most(told("int4-mixed, recovered: package, MB"), recovered["package MB"], room)
        yield at_most(told("int4-mixed, recovered: perplexity over fp32's"), recovered["of fp32's"], 1.05)
    by_hand = found["int4-mixed, as large"]["perplexity"] / found["int4, by hand"]["perplexity"]
    yield at_most(told("int4-mixed: perplexity over that of a mix by hand of its size"), by_hand, 1.0)
    yield at_most(told("the dearest export, seconds"), max(row["export seconds"] for row in found.values()), 60.0)
    most = max(row["export GiB"] for row in found.values()) * 2**30
    yield at_most(told("the dearest export, memory over the model's size in fp32"), most / model.float_bytes, 3.0)
    yield at_least(told("two builds of int4 whose bytes are the same"), float(same), 1.0)


def _costs(package: Path) -> dict[str, float]:
    costs = json.loads(costs_file(package).read_text())
    return {"export seconds": costs["seconds"], "export GiB": costs["gib"]}


def loss_of(decoder: Decoder, corpus: Path, tokens: int) -> float:
    """Mean loss in nats per token on held-out text."""
    nats = count = 0.0
    for window in evaluation_documents(open_corpus(corpus, "heldout"), tokens, 512):
        ids, targets = window.inputs.numpy()[None], window.targets.numpy()
        for logits, wanted in _rows(decoder, ids, targets):
            largest = logits.max(axis=-1, keepdims=True)
            total = np.log(np.exp(logits - largest).sum(axis=-1)) + largest[:, 0]
            nats += float((total - logits[np.arange(len(wanted)), wanted]).sum())
            count += len(wanted)
    return nats / count


def _rows(decoder: Decoder, ids: np.ndarray, targets: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    pieces = in_pieces(ids.shape[1], 256)
    start = 0
    for (logits, _), piece in zip(feed(decoder, ids, np.ones_like(ids), pieces), pieces, strict=True):
        yield logits[0].astype(np.float64), targets[start : start + piece]
        start += piece


def _speed(package: Package, new_tokens: int) -> float:
    generation = generate(package, PROMPT, max_tokens=new_tokens)
    "".join(generation.pieces)
    return generation.tokens_per_second


def _parity(folder: Path) -> dict[str, Any]:
    parity = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))["parity"]
    return {"largest difference": parity["max_difference"], "top-1 agreement": parity["top1_agreement"]}


if __name__ == "__main__":
    run_kept_benchmark("packages", COMMAND, measure, ("torch", "onnx", "onnxruntime", "mobius-onnx"))
