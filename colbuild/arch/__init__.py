"""Architectures as tables of named axes; counts and shapes from them alone, without any weights."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from colbuild.arch.architecture import (
    NORMS,
    Architecture,
    Role,
    Structure,
    Tensor,
    axis_factors,
    axis_length,
    config_for,
    forward_flops,
    norm_sites,
    parameters,
    positions_key,
    rotary_settings,
    structure_of,
    tensors,
)
from colbuild.arch.bridged import LEARNED_POSITIONS, bridged, structure_from_json, structure_to_json
from colbuild.arch.known.gpt import GPT2, GPT_NEOX
from colbuild.arch.known.llama import GEMMA3, LLAMA, MISTRAL, QWEN2, QWEN3
from colbuild.arch.settings import own_settings, setting_problems
from colbuild.arch.shape import Shape
from colbuild.errors import BuildError

ARCHITECTURES: Mapping[str, Architecture] = {
    table.name: table for table in (LLAMA, MISTRAL, QWEN2, QWEN3, GEMMA3, GPT2, GPT_NEOX)
}

__all__ = [
    "ARCHITECTURES",
    "LEARNED_POSITIONS",
    "NORMS",
    "Architecture",
    "Role",
    "Shape",
    "Structure",
    "Tensor",
    "axis_factors",
    "axis_length",
    "bridged",
    "checked_structure",
    "config_for",
    "forward_flops",
    "norm_sites",
    "own_settings",
    "parameters",
    "positions_key",
    "read_structure",
    "rotary_settings",
    "structure_from_json",
    "structure_to_json",
    "tensors",
]


def read_structure(config: Mapping[str, Any]) -> Structure:
    """The structure that a config.json describes.

    Raises:
        BuildError: The architecture is not supported, or the configuration lacks a key.
    """
    architecture = _architecture(config)
    try:
        return structure_of(config, architecture)
    except KeyError as error:
        raise BuildError(f"the model's config.json has no key {error}, which {architecture.name} needs") from None


def checked_structure(config: Mapping[str, Any]) -> Structure:
    """The same for a config.json that colbuild did not write: each of its settings is looked at first.

    Raises:
        BuildError: As `read_structure`; or a setting has a value that transformers refuses or that no graph can hold.
    """
    architecture = _architecture(config)
    problems = list(setting_problems(config, architecture.config_keys, architecture.defaults))
    if problems:
        more = f"; and {len(problems) - 3} more" if problems[3:] else ""
        raise BuildError(
            f"the model's config.json cannot be used: {'; '.join(problems[:3])}{more}",
            hint="correct the file, or get the model from its publisher again",
        )
    return read_structure(config)


def _architecture(config: Mapping[str, Any]) -> Architecture:
    name = config.get("model_type")
    architecture = ARCHITECTURES.get(str(name))
    if architecture is None:
        raise BuildError(
            f"architecture '{name}' is not supported",
            hint=f"supported: {', '.join(sorted(ARCHITECTURES))}; a new one is one table in colbuild/arch/",
        )
    return architecture
