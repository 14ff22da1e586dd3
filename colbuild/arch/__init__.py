"""Architectures as tables of named axes; counts and shapes from them alone, without any weights.

`known` has one file for each architecture, `files` reads configurations and headers of models, and the modules beside them
count parameters and solve shapes. The room may import the
modules at the root; never PyTorch.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from colbuild.arch.architecture import (
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
    stream_readers,
    structure_of,
    tensors,
    wide_norms,
)
from colbuild.arch.bridged import LEARNED_POSITIONS, bridged, structure_from_json, structure_to_json
from colbuild.arch.known import ARCHITECTURES
from colbuild.arch.scalars import scalars_of
from colbuild.arch.settings import own_settings, setting_problems
from colbuild.arch.shape import Shape
from colbuild.arch.table import NORMS, Architecture, Role
from colbuild.errors import BuildError

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
    "scalars_of",
    "shared_window",
    "stream_readers",
    "structure_from_json",
    "structure_to_json",
    "tensors",
    "wide_norms",
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
    problems = list(setting_problems(config, architecture))
    if problems:
        more = f"; and {len(problems) - 3} more" if problems[3:] else ""
        raise BuildError(
            f"the model's config.json cannot be used: {'; '.join(problems[:3])}{more}",
            hint="correct the file, or get the model from its publisher again",
        )
    return read_structure(config)


def shared_window(config: Mapping[str, Any]) -> int | None:
    """Returns the window that all layers of a model share, in tokens; None without one.

    Some architectures have a window in their configuration that they do not use.
    """
    table = ARCHITECTURES.get(str(config.get("model_type")))
    found = None if table is None or table.window is None else config.get(table.window)
    return found if isinstance(found, int) else None


def _architecture(config: Mapping[str, Any]) -> Architecture:
    name = config.get("model_type")
    architecture = ARCHITECTURES.get(str(name))
    if architecture is None:
        raise BuildError(
            f"architecture '{name}' is not supported",
            hint=f"supported: {', '.join(sorted(ARCHITECTURES))}; a new one is one file in colbuild/arch/known/",
        )
    return architecture
