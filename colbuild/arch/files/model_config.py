"""A model's config.json: read from its folder, or made from the header of a GGUF file."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from math import prod
from pathlib import Path
from typing import Any, Final

from colbuild.arch import checked_structure
from colbuild.arch.files.gguf_config import config_from_gguf
from colbuild.arch.files.gguf_header import gguf_parts, read_header
from colbuild.arch.files.json_file import refuse_pointer
from colbuild.arch.files.model_folder import (
    CONFIG_FILE,
    Model,
    fitted_ids,
    has_no_weights,
    read_folder_config,
    read_model_folder,
)
from colbuild.arch.files.safetensors_headers import Entry
from colbuild.errors import BuildError

_TYPES: Final[Mapping[str, str]] = {"F32": "float32", "F16": "float16", "BF16": "bfloat16"}
"""What safetensors calls a type -> what config.json calls it."""

PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle")


def read_config(path: Path, tell: Callable[[str], None] = lambda _: None) -> dict[str, Any]:
    """The configuration of a model, as transformers' config.json holds it.

    A folder that holds a configuration and no weights of any kind can be planned with, before a large download.

    Args:
        path: A Hugging Face model folder or a GGUF file.
        tell: Told that there are no weights.

    Raises:
        BuildError: It is neither, it is damaged or incomplete, or it needs code of its own to run.
    """
    if has_no_weights(path):
        tell(f"{path} holds a configuration and no weights: its family can be planned, but not built")
        return fitted_ids(Model(read_folder_config(path))).config
    model = read_model(path)
    # As the source step writes it: what a weight takes on the disk and in memory follows from it.
    return model.config | ({"dtype": stored_type(model.stored.values())} if model.stored else {})


def stored_type(entries: Iterable[Entry]) -> str:
    """Returns config.json's name of the type of most parameters."""
    counts: Counter[str] = Counter()
    for entry in entries:
        counts[entry.kind] += prod(entry.lengths)
    return _TYPES.get(counts.most_common(1)[0][0], "bfloat16")


def read_model(path: Path) -> Model:
    """A model's configuration and where its tensors lie.

    Raises:
        BuildError: As `read_config`.
    """
    try:
        parts = model_parts(path)
        if parts:
            config = config_from_gguf(read_header(parts))
            checked_structure(config)
            return fitted_ids(Model(config))
        if path.is_dir():
            return fitted_ids(read_model_folder(path))
        refuse_pointer(path)
    except OSError as error:
        raise BuildError(f"the model {path} cannot be read: {error.strerror or error}") from error
    raise _not_a_model(path)


def model_parts(path: Path) -> tuple[Path, ...]:
    """The files of a GGUF model; none if it is a Hugging Face folder, or no model.

    Raises:
        BuildError: A file of a split model is missing.
        OSError: It cannot be read.
    """
    return () if (path / CONFIG_FILE).is_file() else gguf_parts(path)


def _not_a_model(path: Path) -> BuildError:
    if path.suffix in PICKLES:
        return BuildError(
            f"{path.name} holds pickled weights, which run code when they are loaded",
            hint="convert the weights to safetensors, and name the model's folder",
        )
    if path.suffix == ".safetensors":
        return BuildError(
            f"{path.name} holds weights only", hint=f"name the model's folder, with its {CONFIG_FILE} and tokenizer"
        )
    return BuildError(f"{path.name} is neither a model folder nor a GGUF file")
