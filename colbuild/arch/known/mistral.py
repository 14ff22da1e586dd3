"""Mistral: as llama, without biases; layers may have a sliding window."""

from __future__ import annotations

from typing import Final

from colbuild.arch import usual_block as usual
from colbuild.arch.setting_kinds import HEADS, WINDOW
from colbuild.arch.table import Architecture, GraphFacts
from colbuild.arch.value_kinds import optional

TABLE: Final = Architecture(
    name="mistral",
    model_class="MistralForCausalLM",
    config_keys=usual.KEYS,
    flags={"tie_word_embeddings": False},
    settings={**usual.SETTINGS, "num_key_value_heads": HEADS, "sliding_window": optional(WINDOW)},
    defaults={"kv_heads": 8},
    window="sliding_window",
    block={**usual.PARTS, **usual.BEFORE},
    bridge={"sliding_window": None},
    graph=GraphFacts(grouped=True, genai="mistral"),
    prefix=usual.PREFIX,
    buffers=usual.BUFFERS,
    tensors=usual.table(
        usual.norm("input_layernorm"), *usual.ATTENTION, usual.norm("post_attention_layernorm"), *usual.MLP
    ),
)
