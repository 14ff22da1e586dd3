"""A project whose tiny family stands built in a store, made in seconds: steps write small files, nothing imports torch."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Mapping
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import pytest

from colbuild.cli.app import run_command
from colbuild.plan.operation import Operation
from colbuild.run import executor
from tests.helpers.nurseries import ThreadNursery
from tests.helpers.project import copy_project

SPEC = "specs/tiny.yaml"
PLAN = "saved.json"
LAYERS, HIDDEN, FFN, KEYS, VOCABULARY = 6, 96, 192, 48, 512


def make_inputs(folder: Path) -> Path:
    """What `tests.helpers.tiny` makes, of zeros and by hand."""
    ansnet = folder / "ansnet"
    ansnet.mkdir(parents=True)
    config = {
        "model_type": "llama", "architectures": ["LlamaForCausalLM"], "num_hidden_layers": LAYERS, "hidden_size": HIDDEN,
        "intermediate_size": FFN, "num_attention_heads": 6, "num_key_value_heads": 3, "vocab_size": VOCABULARY,
        "max_position_embeddings": 512, "tie_word_embeddings": True, "rms_norm_eps": 1e-6, "bos_token_id": 0, "eos_token_id": 0,
    }  # fmt: skip
    (ansnet / "config.json").write_text(json.dumps(config))
    shapes = {"model.embed_tokens.weight": (VOCABULARY, HIDDEN), "model.norm.weight": (HIDDEN,)}
    for layer in range(LAYERS):
        shapes |= {
            f"model.layers.{layer}.{name}.weight": shape
            for name, shape in {
                "self_attn.q_proj": (HIDDEN, HIDDEN), "self_attn.k_proj": (KEYS, HIDDEN), "self_attn.v_proj": (KEYS, HIDDEN),
                "self_attn.o_proj": (HIDDEN, HIDDEN), "mlp.gate_proj": (FFN, HIDDEN), "mlp.up_proj": (FFN, HIDDEN),
                "mlp.down_proj": (HIDDEN, FFN), "input_layernorm": (HIDDEN,), "post_attention_layernorm": (HIDDEN,),
            }.items()
        }  # fmt: skip
    header, offset = {}, 0
    for name, shape in shapes.items():
        size = 4 * (shape[0] * shape[-1] if len(shape) == 2 else shape[0])
        header[name] = {"dtype": "F32", "shape": list(shape), "data_offsets": [offset, offset + size]}
        offset += size
    content = json.dumps(header).encode()
    with (ansnet / "model.safetensors").open("wb") as file:
        file.write(len(content).to_bytes(8, "little") + content)
        file.truncate(8 + len(content) + offset)
    vocabulary = {"<|endoftext|>": 0, **{f"w{number}": number for number in range(1, VOCABULARY)}}
    added = {
        "id": 0,
        "content": "<|endoftext|>",
        "single_word": False,
        "lstrip": False,
        "rstrip": False,
        "normalized": False,
    }
    tokenizer = {
        "version": "1.0", "truncation": None, "padding": None, "added_tokens": [{**added, "special": True}], "normalizer": None,
        "pre_tokenizer": {"type": "Whitespace"}, "post_processor": None, "decoder": None,
        "model": {"type": "WordLevel", "vocab": vocabulary, "unk_token": "<|endoftext|>"},
    }  # fmt: skip
    (ansnet / "tokenizer.json").write_text(json.dumps(tokenizer))
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": "<|endoftext|>",
        "eos_token": "<|endoftext|>",
    }
    (ansnet / "tokenizer_config.json").write_text(json.dumps(settings))
    documents = ["w1 w2 w3 w4 w5 w6 w7 w8. " * 40 + str(number) for number in range(200)]
    (folder / "corpus.txt").write_text("\n\n\n".join(documents) + "\n")
    return folder


def write_instead(run: Any, params: Mapping[str, Any]) -> None:
    """What each step does: it writes what it was told, and what a status reads."""
    (run.output / "told").write_text(json.dumps(dict(params), sort_keys=True, default=str))
    metrics = {"bits_per_byte": 2.5, "perplexity": 9.0, "top1_agreement": 0.5, "kl": 0.25}
    (run.output / "metrics.json").write_text(json.dumps(metrics))


def make_built(folder: Path) -> Path:
    """The project, built, with a pin and a saved plan."""
    project = copy_project(folder / "project", make_inputs(folder / "inputs"))
    here = Path.cwd()
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("COLBUILD_STORE", raising=False)
        patch.setattr(executor, "open_nursery", ThreadNursery)
        patch.setattr(Operation, "carry_out", lambda _, step, values: write_instead(step, values))
        os.chdir(project)
        try:
            for arguments in (["build", SPEC], ["cache", "pin", "middle", SPEC], ["plan", SPEC, "-o", PLAN]):
                with redirect_stdout(io.StringIO()) as told:
                    assert run_command(arguments) == 0, told.getvalue()
        finally:
            os.chdir(here)
    return project
