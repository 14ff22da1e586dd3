"""The files of a model's tokenizer: the required ones, and the formats that are converted. Imports nothing heavy."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Final

from colbuild.arch.files.json_file import read_object, refuse_pointer
from colbuild.arch.files.model_files import SETTINGS, TOKENIZER
from colbuild.errors import BuildError

SENTENCEPIECE: Final = "tokenizer.model"
CONVERTIBLE: Final = (SENTENCEPIECE, "vocab.json")
"""Tokenizers of older forms, which transformers converts."""

_READERS: Final = ("sentencepiece", "google.protobuf")


def check_tokenizer_files(folder: Path) -> str:
    """Finds a folder's tokenizer; returns the name of its file.

    Raises:
        BuildError: There is none, it needs code of its own, it is a Git LFS pointer, or nothing here reads its form.
    """
    settings = folder / SETTINGS
    if settings.is_file() and read_object(settings).get("auto_map"):
        raise BuildError(f"the tokenizer in {folder} needs custom code ('auto_map'), which colbuild never runs")
    present = next((name for name in (TOKENIZER, *CONVERTIBLE) if (folder / name).is_file()), None)
    if present is None:
        raise BuildError(f"{folder} has no tokenizer: neither {TOKENIZER} nor {' nor '.join(CONVERTIBLE)}")
    refuse_pointer(folder / present)
    if present == SENTENCEPIECE and not all(_installed(name) for name in _READERS):
        raise BuildError(
            f"{folder} has only {SENTENCEPIECE} as its tokenizer, and sentencepiece is not installed",
            hint=f"pip install 'colbuild[sentencepiece]', or put the model's {TOKENIZER} into the folder",
        )
    return present


def _installed(name: str) -> bool:
    try:
        return find_spec(name) is not None
    except ModuleNotFoundError:  # of a parent package
        return False
