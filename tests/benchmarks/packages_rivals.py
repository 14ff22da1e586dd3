"""How fast packages generate, beside onnxruntime-genai's own builds of the same model and llama.cpp.

`python -m tests.benchmarks.packages_rivals [--quick] [--work FOLDER] [--json FILE]`. SmolLM2-135M-Instruct and a DesNet;
one text, 1 and 2 threads, in turns; medians of the rounds, and of what two are to each other in each, as a
machine's speed drifts. Packages run in colbuild's own session (onnxruntime) and in
onnxruntime-genai; the latter's builds in the latter. llama.cpp comes with the package node-llama-cpp, as its prebuilt
library, from npm (COLBUILD_LLAMA_MODULES names a node_modules that has it); without Node its rows are missing. All
matrices of its files have the same bits, as packages have in "int4 in all"; in "int4" embedding and head keep 8. Perplexity is
measured by onnxruntime on the same held-out text. `--quick` leaves the DesNet out.
"""

from __future__ import annotations

import json
import math
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import gguf

from colbuild.export.manifest import INPUTS, MANIFEST, read_manifest
from colbuild.export.runtime.running import open_package
from colbuild.export.runtime.session import Decoder, open_decoder
from colbuild.fetch.fetching import fetch
from tests.benchmarks.builders import genai_build
from tests.benchmarks.harness import Bar, Result, at_least, run_kept_benchmark
from tests.benchmarks.packages import PROMPT, loss_of
from tests.benchmarks.packages_gguf import write_gguf
from tests.benchmarks.packages_models import ANSNET, Model, folder_size, make_package, measure_each

COMMAND = "python -m tests.benchmarks.packages_rivals"
FORMS: dict[str, dict[str, Any]] = {
    "int8": {"precision": "int8"},
    "int4": {"precision": "int4"},
    "int4 in all": {"precision": "int4", "embedding_bits": 4},
}
GENAI: dict[str, tuple[str, tuple[str, ...]]] = {
    "int8": ("int8", ()),
    "int4": ("int4", ("is_symmetric=false", "algo_config=rtn_last")),
    "int4 in all": ("int4", ()),
}
"""The like of each: its precision, and what is not its builder's default. By that 4 bits are in all, without zero points; the
other has zero points, and a head in 8 bits."""
LLAMA_FORMS = {"int8": "Q8_0", "int4": "Q4_1", "int4 in all": "Q4_1"}
LLAMA = "node-llama-cpp@3.22.1"
HERE = Path(__file__).parent

_OURS = """
import json, sys, time
from pathlib import Path
from colbuild.export.runtime.running import open_package
from colbuild.export.runtime.session import generate_tokens
package = open_package(Path(sys.argv[1]), threads=int(sys.argv[2]))
ids, times = package.tokenizer.encode(sys.argv[4]).ids, []
for _ in generate_tokens(package.decoder, ids, lambda logits: int(logits.argmax()), int(sys.argv[3]) + 1):
    times.append(time.monotonic())
print(json.dumps({"tokens_per_second": int(sys.argv[3]) / (times[-1] - times[0])}))
"""
_GENAI = """
import json, sys, time
import onnxruntime_genai as genai
folder, threads, tokens, prompt = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
config = genai.Config(folder)
config.overlay(json.dumps({"model": {"decoder": {"session_options": {"intra_op_num_threads": threads}}}}))
model = genai.Model(config)
ids = genai.Tokenizer(model).encode(prompt)
asked = genai.GeneratorParams(model)
asked.set_search_options(max_length=len(ids) + tokens + 1, min_length=len(ids) + tokens + 1, do_sample=False)
generator = genai.Generator(model, asked)
generator.append_tokens(ids)
generator.generate_next_token()
started = time.monotonic()
for _ in range(tokens):
    generator.generate_next_token()
print(json.dumps({"tokens_per_second": tokens / (time.monotonic() - started)}))
"""


def measure(quick: bool, work: Path) -> Result:
    """Measures the models one after the other."""
    return measure_each(quick, work, lambda model: _measure(model, quick, work))


def _measure(model: Model, quick: bool, work: Path) -> Result:
    """Builds each form of a model once and measures all in turns."""
    tokens, rounds, scored = (24, 1, 1000) if quick else (96, 9, 8000)
    contenders: dict[str, tuple[list[str], Path]] = {}
    for form, profile in FORMS.items():
        package, built = make_package(model, form, profile), _genai_build(model, form)
        contenders[f"colbuild {form}"] = ([sys.executable, "-c", _OURS, str(package)], package)
        contenders[f"colbuild {form}, in onnxruntime-genai"] = ([sys.executable, "-c", _GENAI, str(package)], package)
        contenders[f"onnxruntime-genai's own {form}"] = ([sys.executable, "-c", _GENAI, str(built)], built)
    if (script := _llama(work)) is not None:
        for name, path in _llama_files(model, work).items():
            contenders[f"llama.cpp {name}"] = (["node", str(script), str(path)], path)
    speeds: dict[tuple[str, int], list[float]] = {}
    for threads in (1, 2):
        for name in [name for _ in range(rounds) for name in contenders]:
            speed = _speed(contenders[name][0], threads, tokens)
            speeds.setdefault((name, threads), []).append(speed)
    losses = {
        path: loss_of(_decoder(model, path), model.corpus, scored) for _, path in contenders.values() if path.is_dir()
    }
    rows = tuple(
        {
            "model": model.name,
            "what": name,
            "MB": round(folder_size(path) / 1e6, 1),
            "perplexity": math.exp(losses[path]) if path in losses else None,
            "tokens/s, 1 thread": median(speeds[name, 1]),
            "tokens/s, 2 threads": median(speeds[name, 2]),
        }
        for name, (_, path) in contenders.items()
    )
    return Result(rows, tuple(_bars(model, speeds)))


def _bars(model: Model, speeds: Mapping[tuple[str, int], list[float]]) -> list[Bar]:
    bars = []
    for form, llama in LLAMA_FORMS.items():
        for threads in (1, 2):
            # What is compared are packages; a runtime is the same for both where it can be.
            ours = speeds[f"colbuild {form}, in onnxruntime-genai", threads]
            theirs = speeds[f"onnxruntime-genai's own {form}", threads]
            told = f"{model.name}, {form}, {threads} thread{'s' if threads > 1 else ''}: tokens/s over"
            bars.append(at_least(f"{told} those of onnxruntime-genai's own build", _ratio(ours, theirs), 1.0))
            if theirs := speeds.get((f"llama.cpp {llama}", threads), []):
                bars.append(at_least(f"{told} those of llama.cpp {llama}", _ratio(ours, theirs), 1.2))
    return bars


def _ratio(ours: Sequence[float], theirs: Sequence[float]) -> float:
    return median(one / other for one, other in zip(ours, theirs, strict=True))


def _decoder(model: Model, folder: Path) -> Decoder:
    """A package, or a build of onnxruntime-genai's, whose graph takes the same."""
    if (folder / MANIFEST).exists():
        return open_package(folder, threads=2).decoder
    ours = read_manifest(model.packages / "int8").graph
    return open_decoder(folder / "model.onnx", ours.model_copy(update={"inputs": INPUTS[:2]}), threads=2)


def _genai_build(model: Model, form: str) -> Path:
    """The model as onnxruntime-genai's builder makes it, with our blocks."""
    folder, (precision, more) = model.packages / f"genai {form}", GENAI[form]
    if not (folder / "genai_config.json").exists():
        genai_build(model.folder, folder, precision, more)
    return folder


def _llama(work: Path) -> Path | None:
    """The script beside a node_modules that has llama.cpp; None without Node."""
    if shutil.which("node") is None:
        return None
    folder = work / "llama"
    folder.mkdir(exist_ok=True)
    shutil.copyfile(HERE / "llama.mjs", folder / "llama.mjs")
    if not (folder / "node_modules").exists():
        if ready := os.environ.get("COLBUILD_LLAMA_MODULES"):
            (folder / "node_modules").symlink_to(ready)
        else:
            command = ["npm", "install", "--ignore-scripts", "--no-audit", "--no-fund", "--no-save", LLAMA]
            subprocess.run(command, cwd=folder, check=True, stdout=subprocess.DEVNULL)
    return folder / "llama.mjs"


def _llama_files(model: Model, work: Path) -> dict[str, Path]:
    original = fetch(ANSNET, root=work, downloads=work / "downloads").path
    files = {}
    for name, kind in (("Q8_0", gguf.GGMLQuantizationType.Q8_0), ("Q4_1", gguf.GGMLQuantizationType.Q4_1)):
        files[name] = model.packages / f"model.{name}.gguf"
        if not files[name].exists():
            write_gguf(model.folder, original, kind, files[name])
    return files


def _speed(command: list[str], threads: int, tokens: int) -> float:
    done = subprocess.run([*command, str(threads), str(tokens), PROMPT], capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{command[-1]}: {done.stderr[-2000:]}")
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return float(found["tokens_per_second"])


if __name__ == "__main__":
    run_kept_benchmark("packages_rivals", COMMAND, measure, ("onnxruntime", "onnxruntime-genai", "gguf"))
