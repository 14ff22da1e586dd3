"""The config.json of a bridge in another architecture than the AnsNet's."""

from __future__ import annotations

from collections import Counter
from typing import Any, Final

from transformers import PreTrainedConfig

from colbuild.arch import Structure, config_for, positions_key
from colbuild.arch.files.model_folder import SPECIAL_IDS
from colbuild.arch.scalars import neutral_settings
from colbuild.arch.table import FULL, SLIDING, Rotary
from colbuild.weights.bridge.translation import rotary_base
from colbuild.weights.files.checkpoint import Checkpoint
from colbuild.weights.files.transformers_config import transformers_config
from colbuild.weights.prefix.subset import kept_layers

_THETA: Final = 10000.0


def bridge_config(teacher: Checkpoint, structure: Structure, positions: int | None) -> dict[str, Any]:
    """The settings of a bridge: the AnsNet's, as far as its architecture has them.

    Args:
        teacher: The AnsNet.
        structure: What the bridge is.
        positions: How many it has, if that was asked for.
    """
    theirs, architecture = teacher.config, structure.architecture
    if architecture is teacher.structure.architecture:
        kept = kept_layers(teacher.ordered, structure.shape.layers)
        found = {
            **config_for(theirs, structure, kept),
            **{architecture.fixed[axis]: size for axis, size in structure.fixed},
        }
        return found if positions is None else {**found, positions_key(theirs): positions}
    layers, before = structure.shape.layers, teacher.structure.architecture
    own: dict[str, Any] = {key: getattr(structure.shape, axis) for axis, key in architecture.config_keys.items()}
    own |= dict(structure.flags) | {architecture.fixed[axis]: size for axis, size in structure.fixed}
    own |= {key: theirs[key] for key in SPECIAL_IDS if key in theirs}
    own |= {"model_type": architecture.name, "architectures": [architecture.model_class]}
    own |= {key: theirs[key] for key in ("dtype", "torch_dtype") if key in theirs}
    # As transformers reads it, with the defaults of each architecture. It fills nested mappings in place.
    read = transformers_config(theirs)
    own[architecture.epsilon] = getattr(read, before.epsilon)
    if architecture.is_gated or not before.is_gated:
        own[architecture.activation] = getattr(read, before.activation)
    own |= {**architecture.bridge, **neutral_settings(structure)}
    if architecture.rotary is None:
        return own
    own["max_position_embeddings"] = positions or read.max_position_embeddings
    if architecture.layer_kinds:
        own["layer_types"] = [FULL] * layers
    return own | _rotary_settings(architecture.rotary, _rotary(read, teacher, layers), teacher)


def _rotary_settings(rotary: Rotary, found: dict[str, Any], teacher: Checkpoint) -> dict[str, Any]:
    """How config.json says how positions turn queries and keys."""
    if rotary.share is not None:
        return {"rope_parameters": {"partial_rotary_factor": 1.0, **found}}
    whole = _of_all_channels(found, teacher)
    if rotary.by_kind:
        return {"rope_parameters": {FULL: whole, SLIDING: whole}}
    return {"rope_theta": whole["rope_theta"], "rope_parameters": whole}


def _rotary(read: PreTrainedConfig, teacher: Checkpoint, layers: int) -> dict[str, Any]:
    """How positions turn queries and keys; where that differs between layers, as most of those that are kept do it."""
    found = getattr(read, "rope_parameters", None) or {"rope_type": "default", "rope_theta": _THETA}
    if "rope_theta" in found:
        return dict(found)
    whole = teacher.structure.shape.layers
    kept = kept_layers(teacher.lineage, min(layers, whole)) if teacher.lineage is not None else range(whole)
    kinds = Counter(read.layer_types[layer] for layer in kept)
    return dict(found[kinds.most_common(1)[0][0]])


def _of_all_channels(rotary: dict[str, Any], teacher: Checkpoint) -> dict[str, Any]:
    """Settings for an architecture that turns all of a head's channels (`colbuild.weights.bridge.translation`)."""
    share = rotary.pop("partial_rotary_factor", 1.0)
    width = teacher.structure.shape.head_dim
    turned = int(width * share) // 2 * 2
    if turned not in (0, width):
        rotary["rope_theta"] = rotary_base(float(rotary["rope_theta"]), width, turned)
    return rotary
