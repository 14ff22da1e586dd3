"""A model's config.json: read from its folder, or made from the header of a GGUF file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from colbuild.errors import BuildError
from colbuild.ops.source.gguf_config import config_from_gguf
from colbuild.ops.source.gguf_file import gguf_parts, read_header

CONFIG_FILE = "config.json"
_PICKLED = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle")


def read_config(path: Path) -> dict[str, Any]:
    """The configuration of a model, as transformers' config.json holds it.

    Args:
        path: A Hugging Face model folder or a GGUF file.

    Raises:
        BuildError: It is neither, it is damaged, or it needs code of its own to run.
    """
    try:
        parts = model_parts(path)
        if parts:
            return config_from_gguf(read_header(parts))
        if path.is_dir():
            return _read_folder(path)
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


def _read_folder(folder: Path) -> dict[str, Any]:
    path = folder / CONFIG_FILE
    if not path.is_file():
        ggufs = sorted(entry.name for entry in folder.glob("*.gguf"))
        hint = f"It holds GGUF files; name one of them: {', '.join(ggufs[:3])}." if ggufs else None
        raise BuildError(f"{folder} is not a model: it has no {CONFIG_FILE}", hint=hint)
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise BuildError(f"{path} is not JSON: {error}") from None
    if not isinstance(config, dict):
        raise BuildError(f"{path} holds no JSON object")
    if config.get("auto_map"):
        raise BuildError(
            f"{path} asks for code of its own ('auto_map'), which colbuild never runs",
            hint="Use a model whose architecture transformers itself knows.",
        )
    if config.get("quantization_config"):
        raise BuildError(
            f"{path} describes quantised weights ('quantization_config'), which cannot be trained or subset",
            hint="Use the model's original weights, or a GGUF file, which is dequantised.",
        )
    return config


def _not_a_model(path: Path) -> BuildError:
    if path.suffix in _PICKLED:
        return BuildError(
            f"{path.name} holds pickled weights, which run code when they are loaded",
            hint="Convert it to safetensors, and name the model's folder.",
        )
    if path.suffix == ".safetensors":
        return BuildError(
            f"{path.name} holds weights only", hint=f"Name the folder it is in, with its {CONFIG_FILE} and tokenizer."
        )
    return BuildError(f"{path.name} is neither a model folder nor a GGUF file")
