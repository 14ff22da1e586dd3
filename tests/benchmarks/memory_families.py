"""Families that have every kind of step, on three models, for the benchmark of memory."""

from __future__ import annotations

import itertools
import json
import os
import random
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from tests.benchmarks.packages_models import ANSNET
from tests.benchmarks.project import ROOT

STORIES: Final = "COLBUILD_BENCH_STORIES"
"""The variable that names the folder of stories15M as Hugging Face has it; without it a random model of its shape is used."""

_TEXT: Final = 8_000_000
_WORDS: Final = 30_000


@dataclass(frozen=True)
class Model:
    """A model whose families are built.

    Attributes:
        name: As in tables.
        source: Where it comes from; None for one with random weights, of `config`.
        config: Its config.json, where it is made here.
        sizes: Parameters of two anchors, and of a DesNet between them.
        context: Of packages.
        layers: Of an anchor behind a bridge.
    """

    name: str
    source: str | None
    config: dict[str, Any] | None
    sizes: tuple[str, str, str]
    context: int
    layers: int


_STORIES_CONFIG: Final = {
    "model_type": "llama",
    "vocab_size": 32000,
    "hidden_size": 288,
    "intermediate_size": 768,
    "num_hidden_layers": 6,
    "num_attention_heads": 6,
    "num_key_value_heads": 6,
    "max_position_embeddings": 256,
    "tie_word_embeddings": True,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "dtype": "float32",
}
_LARGE_CONFIG: Final = {
    "model_type": "gemma3_text",
    "vocab_size": 262144,
    "hidden_size": 256,
    "intermediate_size": 1024,
    "num_hidden_layers": 6,
    "num_attention_heads": 4,
    "num_key_value_heads": 1,
    "head_dim": 64,
    "query_pre_attn_scalar": 64,
    "max_position_embeddings": 2048,
    "sliding_window": 512,
    "tie_word_embeddings": True,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
    "dtype": "bfloat16",
}


def models(quick: bool) -> tuple[Model, ...]:
    """The models that are measured."""
    stories = Model("stories15M", os.environ.get(STORIES), _STORIES_CONFIG, ("13.5M", "11M", "12M"), 256, 5)
    smol = Model("SmolLM2-135M", ANSNET, None, ("103M", "76M", "88M"), 512, 24)
    large = Model("gemma3, 262k tokens", None, _LARGE_CONFIG, ("71.5M", "69M", "70M"), 512, 5)
    return (stories,) if quick else (stories, smol, large)


_HEAD: Final = """apiVersion: colbuild/v1
name: {name}
ansnet: {{source: "{source}"}}
order: {{tokens: 4k}}
"""

FAMILIES: Final = {
    # order, elastic and plain distillation, interpolation, recovery, packages
    "chain": """data: {{train: {{source: ./text.txt}}, eval: {{tokens: 4k}}}}
chain:
  recipe: recipes/distill.yaml
  tokens: 6k
  anchors: [{{name: large, params: {0}}}, {{name: small, params: {1}}}]
desnets:
  - {{name: mid, params: {2}, exports: [p-int8, p-fp32, p-int4, p-trained]}}
  - name: mended
    params: {2}
    interpolate: {{method: subset}}
    recover: {{recipe: recipes/recover.yaml, tokens: 6k}}
    exports: []
defaults: {{interpolate: {{tokens: 2k}}}}
""",
    # lessons, a nested student that is kept, a checkpoint that is aligned, jsonl
    "lessons": """data: {{train: {{source: ./text.jsonl}}, eval: {{tokens: 2k}}}}
chain:
  recipe: recipes/distill.yaml
  tokens: 6k
  teacher: cached
  anchors:
    - {{name: large, shape: {{{shape}}}, elastic: null, init: {{checkpoint: ./start, tokens: 2k}}}}
    - {{name: small, params: {1}, elastic: {{form: segment}}}}
desnets: [{{name: mid, params: {2}, interpolate: {{tokens: 2k}}}}]
""",
    # a vocabulary of its own, a bridge, parquet
    "bridge": """data: {{train: {{source: ./text.parquet}}, eval: {{tokens: 2k}}}}
chain:
  recipe: recipes/distill.yaml
  tokens: 4k
  bridge: {{architecture: qwen3, tokenizer: {{train: 4k}}, recipe: recipes/short.yaml, tokens: 6k}}
  anchors: [{{name: large, shape: {{layers: {layers}}}, elastic: null}}]
desnets: [{{name: same, shape: {{layers: {layers}}}}}]
""",
    # text that the model writes
    "own": """data: {{train: {{generate: {{tokens: 16k, length: 128}}, heldout: 0.4}}, eval: {{tokens: 4k}}}}
chain: {{recipe: recipes/distill.yaml, tokens: 2k, anchors: [{{name: large, params: {0}}}]}}
desnets: [{{name: same, params: {0}}}]
""",
}
TARGETS: Final = {"own": ("--target", "ansnet"), "bridge": ("--target", "bridge")}
"""What is built of a family, where that is not everything."""


def write_project(folder: Path, model: Model) -> Path:
    """A project with a model, a text in three forms, and profiles."""
    for name in ("recipes", "specs", "exports"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    for recipe in (ROOT / "recipes").iterdir():
        shutil.copyfile(recipe, folder / "recipes" / recipe.name)
    # Texts of few words are twice as long for the AnsNet, which may have no more than 256 positions.
    (folder / "recipes/short.yaml").write_text("extends: recipes/bridge.yaml\nsequence: 64\nbatch: 16\n")
    for precision in ("int8", "fp32", "int4"):
        (folder / f"exports/p-{precision}.yaml").write_text(f"precision: {precision}\ncontext: {model.context}\n")
    trained = f"precision: int4\ncontext: {model.context}\nrecover: {{tokens: 2048}}\n"
    (folder / "exports/p-trained.yaml").write_text(trained)
    _write_texts(folder)
    if model.source is None:
        _write_model(folder / "ansnet", model.config or {})
    return folder


def write_family(project: Path, model: Model, family: str) -> str:
    """A family's file, and what it starts from of families that were built before; its path in the project."""
    shape = ""
    if family == "lessons":
        made = project / "out/chain/large/checkpoint"
        shutil.copytree(made, project / "start", dirs_exist_ok=True)
        config = json.loads((made / "config.json").read_text(encoding="utf-8"))
        keys = {
            "layers": "num_hidden_layers",
            "ffn": "intermediate_size",
            "hidden": "hidden_size",
            "heads": "num_attention_heads",
            "kv_heads": "num_key_value_heads",
        }
        shape = ", ".join(f"{axis}: {config[key]}" for axis, key in keys.items())
    text = _HEAD.format(name=family, source=model.source or "./ansnet")
    text += FAMILIES[family].format(*model.sizes, shape=shape, layers=model.layers)
    path = project / "specs" / f"{family}.yaml"
    path.write_text(text, encoding="utf-8")
    return f"specs/{family}.yaml"


def _write_texts(folder: Path) -> None:
    """Words of random letters, some often and most seldom, as in a language."""
    import pyarrow
    import pyarrow.parquet

    source = random.Random(7)
    words = ["".join(source.choices("etaoinshrdlu", k=source.randint(2, 9))) for _ in range(_WORDS)]
    weights = [1 / place for place in range(1, _WORDS + 1)]
    documents, size = [], 0
    while size < _TEXT:
        text = " ".join(source.choices(words, weights, k=300))
        documents.append(text)
        size += len(text)
    (folder / "text.txt").write_text("\n\n\n".join(documents), encoding="utf-8")
    lines = "".join(json.dumps({"text": text}) + "\n" for text in documents)
    (folder / "text.jsonl").write_text(lines, encoding="utf-8")
    pyarrow.parquet.write_table(pyarrow.table({"text": documents}), folder / "text.parquet")


def _write_model(folder: Path, config: dict[str, Any]) -> None:
    """A model with random weights, and a tokenizer with a token for each of its rows: most are never read in a text."""
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers
    from transformers import AutoConfig, AutoModelForCausalLM

    torch.manual_seed(0)
    settings = AutoConfig.for_model(**config)
    AutoModelForCausalLM.from_config(settings, dtype=getattr(torch, config["dtype"])).save_pretrained(folder)
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(
        vocab_size=16_000,
        special_tokens=["<pad>", "<s>", "</s>"],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator((folder.parent / "text.txt").read_text("utf-8")[:2_000_000].split("\n\n\n"), trainer)
    content = json.loads(tokenizer.to_str())
    _fill(content["model"], config["vocab_size"])
    (folder / "tokenizer.json").write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")
    names = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(names), encoding="utf-8")


def _fill(model: dict[str, Any], rows: int) -> None:
    """Adds pairs of tokens to a byte-pair model until it has so many."""
    vocabulary, merges = model["vocab"], model["merges"]
    known = [token for token in vocabulary if not token.startswith("<")]
    for first, second in itertools.product(known, known):
        if len(vocabulary) >= rows:
            return
        if first + second not in vocabulary:
            vocabulary[first + second] = len(vocabulary)
            merges.append([first, second])
