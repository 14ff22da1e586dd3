"""The config.json of a model that follows another one in an architecture of its own."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any, Final

from transformers import PreTrainedConfig

from colbuild.arch import Structure, config_for, positions_key
from colbuild.arch.correspondence import is_gated
from colbuild.weights.bridge.translation import rotary_base
from colbuild.weights.files.checkpoint import SPECIAL_IDS, Checkpoint
from colbuild.weights.files.transformers_config import transformers_config
from colbuild.weights.prefix.subset import kept_layers

_EPSILON: Final = ("rms_norm_eps", "layer_norm_epsilon", "layer_norm_eps")
_ACTIVATION: Final = ("hidden_act", "hidden_activation", "activation_function")
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
    name, layers = architecture.name, structure.shape.layers
    own: dict[str, Any] = {key: getattr(structure.shape, axis) for axis, key in architecture.config_keys.items()}
    own |= dict(structure.flags) | {architecture.fixed[axis]: size for axis, size in structure.fixed}
    own |= {key: theirs[key] for key in SPECIAL_IDS if key in theirs}
    own |= {"model_type": name, "architectures": [architecture.model_class]}
    own |= {key: theirs[key] for key in ("dtype", "torch_dtype") if key in theirs}
    # As transformers reads it, with the defaults of each architecture. It fills nested mappings in place.
    read = transformers_config(theirs)
    own[{"gpt2": "layer_norm_epsilon", "gpt_neox": "layer_norm_eps"}.get(name, "rms_norm_eps")] = _first(read, _EPSILON)
    gated = is_gated(architecture)
    if gated or not is_gated(teacher.structure.architecture):
        key = {"gpt2": "activation_function", "gemma3_text": "hidden_activation"}.get(name, "hidden_act")
        own[key] = _first(read, _ACTIVATION)
    if name == "gpt2":
        return own
    own["max_position_embeddings"] = positions or read.max_position_embeddings
    rotary = _rotary(read, teacher, layers)
    if name == "gpt_neox":
        return {**own, "rope_parameters": {"partial_rotary_factor": 1.0, **rotary}, "use_parallel_residual": False}
    rotary = _of_all_channels(rotary, teacher)
    if name in ("qwen2", "qwen3", "gemma3_text"):
        own["layer_types"] = ["full_attention"] * layers
    if name == "mistral":
        own["sliding_window"] = None
    if name == "gemma3_text":
        own["query_pre_attn_scalar"] = structure.shape.head_dim
        return {**own, "rope_parameters": {"full_attention": rotary, "sliding_attention": rotary}}
    return {**own, "rope_theta": rotary["rope_theta"], "rope_parameters": rotary}


def _first(read: PreTrainedConfig, names: Sequence[str]) -> Any:
    """The value of the first of some settings that a configuration has."""
    return next(getattr(read, name) for name in names if hasattr(read, name))


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
