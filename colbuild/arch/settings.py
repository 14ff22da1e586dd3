"""Checks a config.json against the settings that its architecture's file lists.

Other settings belong to the machine that wrote the file (`_attn_implementation`, `_name_or_path`, `torch_dtype`) or to another
task (`id2label`), or are unknown. They are dropped, and reach neither transformers nor a family.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any, Final

from colbuild.arch.known import ARCHITECTURES
from colbuild.arch.rotary import rotary_problems
from colbuild.arch.table import Architecture
from colbuild.arch.value_kinds import FLAG, Kind

RUNNING: Final[Mapping[str, Kind]] = {"use_cache": FLAG}
"""Settings of a run that transformers looks at although they are not passed on: a wrong one is a mistake in the file."""

USUAL: Final[Mapping[str, Any]] = {
    "use_cache": True,
    "pretraining_tp": 1,
    "is_decoder": False,
    "classifier_dropout": 0.1,
    "summary_activation": None,
    "summary_first_dropout": 0.1,
    "summary_proj_to_labels": True,
    "summary_type": "cls_index",
    "summary_use_proj": True,
}
"""What transformers writes into every config.json and says nothing of a model. It is kept where it says just this: a folder as
transformers saves it is then the same model, to the byte, as before these lists."""

ACCEPTED: Final[Mapping[str, Any]] = {"is_causal": True, "per_layer_config": None}
"""Keys of any architecture that are not passed on, and for which only one value is right."""


def own_settings(config: Mapping[str, Any]) -> dict[str, Any]:
    """A config.json without the keys that are not its architecture's own.

    Of an architecture that is not known all is kept, for it to be refused by its name.
    """
    architecture = ARCHITECTURES.get(str(config.get("model_type")))
    return {
        key: value
        for key, value in config.items()
        if architecture is None or key in architecture.settings or _is_usual(key, value)
    }


def _is_usual(key: str, value: Any) -> bool:
    return key in USUAL and type(value) is type(USUAL[key]) and value == USUAL[key]


def setting_problems(config: Mapping[str, Any], architecture: Architecture) -> Iterator[str]:
    """Yields the reasons why a config.json does not match its architecture, each with the name of the key.

    Args:
        config: What it holds; a key that is missing is no problem here.
        architecture: Its architecture.
    """
    wrong = False
    for key, kind in {**architecture.settings, **RUNNING}.items():
        if key in config and not kind.holds(config[key]):
            wrong = True
            yield f"{key} is {_show(config[key])}; {architecture.name} needs {kind.told}"
    for key, value in ACCEPTED.items():
        if config.get(key, value) not in (value, None):
            yield f"{key}: {_show(config[key])} is not supported; only {key}: {_show(value)} is"
    if not wrong:
        yield from _together(config, architecture)


def _together(config: Mapping[str, Any], architecture: Architecture) -> Iterator[str]:
    """What is wrong although each value by itself is right."""
    keys, usual = architecture.config_keys, architecture.defaults
    layers, hidden, heads = (config.get(keys[axis]) for axis in ("layers", "hidden", "heads"))
    if layers is None or hidden is None or heads is None:
        return
    kv_heads = config.get(keys.get("kv_heads", ""), usual.get("kv_heads")) or heads
    head_dim = config.get(keys.get("head_dim", ""), usual.get("head_dim")) or hidden // heads
    derived = "head_dim" in keys and "head_dim" not in usual and config.get(keys["head_dim"]) is None
    if hidden % heads and (architecture.divides_hidden or derived):
        yield f"{keys['hidden']} {hidden} is not a multiple of {keys['heads']} {heads}"
    if heads % kv_heads:
        yield f"{keys['heads']} {heads} is not a multiple of {keys['kv_heads']} {kv_heads}"
    if architecture.rotary is not None and head_dim % 2:
        told = keys.get("head_dim", f"{keys['hidden']} / {keys['heads']}")
        yield f"{told} {head_dim} is odd, and rotary positions rotate pairs of channels"
    for key in architecture.per_layer:
        listed = config.get(key)
        if listed is not None and len(listed) != layers:
            yield f"{key} has {len(listed)} entries for {layers} layers"
    scale = architecture.scalars.get("attention_width")
    if scale is not None and head_dim != scale.usual and scale.key not in config:
        yield (
            f"{scale.key} is missing, and head_dim is {head_dim}: attention is divided by the root of the former, "
            f"which is {scale.usual:g} by default"
        )
    if architecture.rotary is not None:
        yield from rotary_problems(architecture, architecture.rotary, config, head_dim)


def _show(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else f"{text[:57]}…"
