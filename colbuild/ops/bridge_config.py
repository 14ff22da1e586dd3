"""The config.json of a model that follows another one in an architecture of its own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from colbuild.arch import Structure, config_for, positions_key
from colbuild.weights.blocks import GATED
from colbuild.weights.checkpoint import SPECIAL_IDS, Checkpoint
from colbuild.weights.subset import kept_layers

_EPSILON: Final = ("rms_norm_eps", "layer_norm_epsilon", "layer_norm_eps")
_ACTIVATION: Final = ("hidden_act", "hidden_activation", "activation_function")
_USUAL: Final = 2048


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
    usual = 1e-6 if teacher.structure.architecture.name in GATED else 1e-5
    epsilon = next((theirs[key] for key in _EPSILON if key in theirs), usual)
    own[{"gpt2": "layer_norm_epsilon", "gpt_neox": "layer_norm_eps"}.get(name, "rms_norm_eps")] = epsilon
    activation = next((theirs[key] for key in _ACTIVATION if key in theirs), None)
    if activation is not None and (name in GATED) == (teacher.structure.architecture.name in GATED):
        own[{"gpt2": "activation_function", "gemma3_text": "hidden_activation"}.get(name, "hidden_act")] = activation
    if name == "gpt2":
        return own
    own["max_position_embeddings"] = positions or theirs.get(positions_key(theirs), _USUAL)
    rotary = _rotary(theirs)
    if name == "gpt_neox":
        return {**own, "rope_parameters": {**rotary, "partial_rotary_factor": 1.0}, "use_parallel_residual": False}
    if name in ("qwen2", "qwen3", "gemma3_text"):
        own["layer_types"] = ["full_attention"] * layers
    if name == "mistral":
        own["sliding_window"] = None
    if name == "gemma3_text":
        own["query_pre_attn_scalar"] = structure.shape.head_dim
        return {**own, "rope_parameters": {"full_attention": rotary, "sliding_attention": rotary}}
    return {**own, "rope_theta": rotary["rope_theta"], "rope_parameters": rotary}


def _rotary(config: Mapping[str, Any]) -> dict[str, Any]:
    """How positions turn queries and keys, as transformers writes it since version 5."""
    found = config.get("rope_parameters") or {}
    found = found.get("full_attention", found)
    theta = config.get("rope_theta", config.get("rotary_emb_base", 10000.0))
    scaling = config.get("rope_scaling") or {}
    return {"rope_type": "default", "rope_theta": theta, **scaling, **found}
