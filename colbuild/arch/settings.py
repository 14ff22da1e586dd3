"""The settings of each architecture: every key of config.json that is passed on to transformers, and the values it may have.

What a config.json holds besides is of the machine that wrote it (`_attn_implementation`, `_name_or_path`, `torch_dtype`), of
another task (`id2label`), or nobody's: it is dropped, and reaches neither transformers nor a family.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any, Final

from colbuild.arch.rotary import ROTARY_KEYS, rotary_problems
from colbuild.arch.value_kinds import (
    ANYTHING,
    FLAG,
    ID,
    IDS,
    SHARE,
    SPREAD,
    Kind,
    choice,
    decimal,
    optional,
    several,
    whole,
)
from colbuild.bounds import LAYERS, ROWS

_LAYERS: Final = whole(1, LAYERS)
_HEADS: Final = whole(1, 1 << 16)
_WIDTH: Final = whole(1, 1 << 20)
_ROWS: Final = whole(1, ROWS)
_POSITIONS: Final = whole(1, 1 << 24)
_WINDOW: Final = whole(1, 1 << 31)
_EPSILON: Final = decimal(1.0)
_ACTIVATION: Final = choice(
    "gelu", "gelu_fast", "gelu_new", "gelu_pytorch_tanh", "linear", "mish", "quick_gelu", "relu", "relu2", "sigmoid",
    "silu", "swish", "tanh",
)  # fmt: skip
_FULL: Final = choice("full_attention")
_EITHER: Final = choice("full_attention", "sliding_attention")

_EVERY: Final[Mapping[str, Kind]] = {
    "model_type": ANYTHING,
    "vocab_size": _ROWS,
    "tie_word_embeddings": FLAG,
    "initializer_range": SPREAD,
    "bos_token_id": ID,
    "eos_token_id": IDS,
    "pad_token_id": ID,
}
_LLAMA: Final[Mapping[str, Kind]] = {
    **_EVERY,
    **ROTARY_KEYS,
    "num_hidden_layers": _LAYERS,
    "hidden_size": _WIDTH,
    "intermediate_size": _WIDTH,
    "num_attention_heads": _HEADS,
    "num_key_value_heads": optional(_HEADS),
    "head_dim": optional(_WIDTH),
    "hidden_act": _ACTIVATION,
    "max_position_embeddings": _POSITIONS,
    "rms_norm_eps": _EPSILON,
    "attention_dropout": SHARE,
}
_QWEN: Final[Mapping[str, Kind]] = {
    **_LLAMA,
    "head_dim": _WIDTH,
    "use_sliding_window": FLAG,
    "sliding_window": optional(_WINDOW),
    "max_window_layers": whole(0, 1 << 16),
    "layer_types": optional(several(_FULL)),
}

SETTINGS: Final[Mapping[str, Mapping[str, Kind]]] = {
    "llama": {**_LLAMA, "attention_bias": FLAG, "mlp_bias": FLAG, "attention_dropout": optional(SHARE)},
    "mistral": {**_LLAMA, "num_key_value_heads": _HEADS, "sliding_window": optional(_WINDOW)},
    "qwen2": _QWEN,
    "qwen3": {**_QWEN, "attention_bias": FLAG},
    "gemma3_text": {
        **{key: kind for key, kind in _LLAMA.items() if key != "hidden_act"},
        "num_key_value_heads": _HEADS,
        "head_dim": _WIDTH,
        "hidden_activation": _ACTIVATION,
        "attention_bias": FLAG,
        "attention_dropout": optional(SHARE),
        "query_pre_attn_scalar": _WIDTH,
        "sliding_window": _WINDOW,
        "sliding_window_pattern": _LAYERS,
        "layer_types": optional(several(_EITHER)),
        "rope_local_base_freq": ROTARY_KEYS["rope_theta"],
        "final_logit_softcapping": ANYTHING,
        "attn_logit_softcapping": ANYTHING,
        "use_bidirectional_attention": optional(FLAG),
    },
    "gpt2": {
        **_EVERY,
        "n_layer": _LAYERS,
        "n_embd": _WIDTH,
        "n_inner": optional(_WIDTH),
        "n_head": _HEADS,
        "n_positions": _POSITIONS,
        "activation_function": _ACTIVATION,
        "resid_pdrop": SHARE,
        "embd_pdrop": SHARE,
        "attn_pdrop": SHARE,
        "layer_norm_epsilon": _EPSILON,
        "scale_attn_weights": FLAG,
        "scale_attn_by_inverse_layer_idx": FLAG,
        "reorder_and_upcast_attn": FLAG,
        "add_cross_attention": FLAG,
    },
    "gpt_neox": {
        **_EVERY,
        **{key: kind for key, kind in ROTARY_KEYS.items() if key in ("rope_scaling", "rope_parameters")},
        "rotary_emb_base": ROTARY_KEYS["rope_theta"],
        "rotary_pct": SHARE,
        "num_hidden_layers": _LAYERS,
        "hidden_size": _WIDTH,
        "intermediate_size": _WIDTH,
        "num_attention_heads": _HEADS,
        "hidden_act": _ACTIVATION,
        "attention_dropout": SHARE,
        "hidden_dropout": SHARE,
        "max_position_embeddings": _POSITIONS,
        "layer_norm_eps": _EPSILON,
        "use_parallel_residual": FLAG,
        "attention_bias": FLAG,
    },
}
"""Architecture -> key of config.json -> the values it may have. What transformers fills in where a key is missing is right."""

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
    own = SETTINGS.get(str(config.get("model_type")))
    return {key: value for key, value in config.items() if own is None or key in own or _is_usual(key, value)}


def _is_usual(key: str, value: Any) -> bool:
    return key in USUAL and type(value) is type(USUAL[key]) and value == USUAL[key]


def setting_problems(config: Mapping[str, Any], keys: Mapping[str, str], usual: Mapping[str, int]) -> Iterator[str]:
    """Why a config.json cannot be one of its architecture, each with the name of the key.

    Args:
        config: What it holds; a key that is missing is no problem here.
        keys: Length -> its key, as `Architecture.config_keys`.
        usual: Length -> its value where the key is missing, as `Architecture.defaults`.
    """
    name = str(config.get("model_type"))
    wrong = False
    for key, kind in {**SETTINGS[name], **RUNNING}.items():
        if key in config and not kind.holds(config[key]):
            wrong = True
            yield f"{key} is {_show(config[key])}; {name} needs {kind.told}"
    for key, value in ACCEPTED.items():
        if config.get(key, value) not in (value, None):
            yield f"{key}: {_show(config[key])} is not supported; only {key}: {_show(value)} is"
    if not wrong:
        yield from _together(name, config, keys, usual)


def _together(name: str, config: Mapping[str, Any], keys: Mapping[str, str], usual: Mapping[str, int]) -> Iterator[str]:
    """What is wrong although each value by itself is right."""
    layers, hidden, heads = (config.get(keys[axis]) for axis in ("layers", "hidden", "heads"))
    if layers is None or hidden is None or heads is None:
        return
    kv_heads = config.get(keys.get("kv_heads", ""), usual.get("kv_heads")) or heads
    head_dim = config.get(keys.get("head_dim", ""), usual.get("head_dim")) or hidden // heads
    derived = "head_dim" in keys and "head_dim" not in usual and config.get(keys["head_dim"]) is None
    if hidden % heads and (name in _EVEN_WIDTH or derived):
        yield f"{keys['hidden']} {hidden} is not a multiple of {keys['heads']} {heads}"
    if heads % kv_heads:
        yield f"{keys['heads']} {heads} is not a multiple of {keys['kv_heads']} {kv_heads}"
    if name in _ROTARY and head_dim % 2:
        told = keys.get("head_dim", f"{keys['hidden']} / {keys['heads']}")
        yield f"{told} {head_dim} is odd, and rotary positions turn pairs of channels"
    listed = config.get("layer_types")
    if listed is not None and "layer_types" in SETTINGS[name] and len(listed) != layers:
        yield f"layer_types has {len(listed)} entries for {layers} layers"
    if name == "gemma3_text" and head_dim != usual["head_dim"] and "query_pre_attn_scalar" not in config:
        yield (
            f"query_pre_attn_scalar is missing, and head_dim is {head_dim}: attention is divided by the root of the former, "
            f"which is {usual['head_dim']} by default"
        )
    if name in _ROTARY:
        yield from rotary_problems(name, config, head_dim)


_EVEN_WIDTH: Final = ("llama", "gemma3_text", "gpt2", "gpt_neox")
_ROTARY: Final = tuple(name for name in SETTINGS if name != "gpt2")


def _show(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else f"{text[:57]}…"
