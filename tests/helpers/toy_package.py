"""A package of a few bytes, made by hand in milliseconds: its model repeats what it reads. Tests spoil its parts."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy
import onnx
from onnx import TensorProto, helper, numpy_helper
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

VOCAB = 256
WIDTH = 4
GRAPH = "onnx/model.onnx"
TEMPLATE = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}"
_LENGTHS = {"cache": ["batch", 1, "past", WIDTH], "ids": ["batch", "new"], "mask": ["batch", "all"]}


def make_toy_package(folder: Path) -> Path:
    """Writes a package that `verify` and `run` take."""
    (folder / "onnx").mkdir(parents=True)
    onnx.save(toy_graph(), folder / GRAPH)
    write_tokenizer(folder / "tokenizer.json")
    texts = {
        "README.md": "# A toy\n",
        "config.json": json.dumps({"model_type": "llama", "bos_token_id": 0, "eos_token_id": [1]}),
        "generation_config.json": json.dumps({"eos_token_id": 1}),
        "genai_config.json": json.dumps({"model": {"type": "llama", "vocab_size": VOCAB}}),
        "tokenizer_config.json": json.dumps({"bos_token": "a", "chat_template": TEMPLATE}),
    }
    for name, text in texts.items():
        (folder / name).write_text(text)
    (folder / "manifest.json").write_text(json.dumps(_manifest()))
    list_files(folder)
    return folder


def toy_graph(
    nodes: Sequence[onnx.NodeProto] = (), added: str | None = None, tensors: Sequence[TensorProto] = ()
) -> onnx.ModelProto:
    """The graph; with further nodes, of whose results a scalar may be added to the logits."""
    table = numpy.random.default_rng(0).normal(size=(VOCAB, WIDTH)).astype(numpy.float32)
    weights = [numpy_helper.from_array(table, "table"), numpy_helper.from_array(table.T.copy(), "head")]
    body = [
        helper.make_node("Gather", ["table", "input_ids"], ["hidden"]),
        helper.make_node("Unsqueeze", ["hidden", "one"], ["new"]),
        helper.make_node("Concat", ["past_key_values.0.key", "new"], ["present.0.key"], axis=2),
        helper.make_node("Concat", ["past_key_values.0.value", "new"], ["present.0.value"], axis=2),
        helper.make_node("MatMul", ["hidden", "head"], ["logits" if added is None else "plain"]),
        *nodes,
    ]
    if added is not None:
        body.append(helper.make_node("Add", ["plain", added], ["logits"]))
    given = [_value("input_ids", TensorProto.INT64, "ids"), _value("attention_mask", TensorProto.INT64, "mask")]
    given += [_value(f"past_key_values.0.{name}", TensorProto.FLOAT, "cache") for name in ("key", "value")]
    logits = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", "new", VOCAB])
    present = [_value(f"present.0.{name}", TensorProto.FLOAT, "cache") for name in ("key", "value")]
    one = numpy_helper.from_array(numpy.array([1], numpy.int64), "one")
    graph = helper.make_graph(body, "toy", given, [logits, *present], [*weights, one, *tensors])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)


def write_tokenizer(path: Path) -> None:
    """A tokenizer of single bytes."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE({letter: place for place, letter in enumerate(alphabet)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.save(str(path))


def read(folder: Path) -> dict[str, Any]:
    """Its manifest."""
    return json.loads((folder / "manifest.json").read_text())


def list_files(folder: Path, **changes: Any) -> None:
    """Writes the manifest anew, with the files that there are; `changes` replace parts, `graph__layers=3` those of a part."""
    told = read(folder)
    for name, value in changes.items():
        *outer, last = name.split("__")
        part = told
        for key in outer:
            part = part[key]
        part[last] = value
    told["files"] = [
        {"path": str(path.relative_to(folder)), "size": path.stat().st_size, "sha256": _digest(path)}
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != "manifest.json"
    ]
    (folder / "manifest.json").write_text(json.dumps(told))


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _value(name: str, kind: int, lengths: str) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, kind, _LENGTHS[lengths])


def _manifest() -> dict[str, Any]:
    shape = {"layers": 1, "hidden": WIDTH, "ffn": 1, "heads": 1, "kv_heads": 1, "head_dim": WIDTH, "vocab": VOCAB}
    parity = {"prompts": {"a": 0.0}, "max_difference": 0.0, "relative_error": 0.0, "mean_kl": 0.0}
    table = numpy.random.default_rng(0).normal(size=(VOCAB, WIDTH)).astype(numpy.float32)
    tokens, last = [], 7
    for _ in range(4):
        last = int((table[last] @ table.T).argmax())
        tokens.append(last)
    return {
        "schema_version": 1,
        "colbuild": "0",
        "model": {
            "architecture": "llama", "parameters": VOCAB * WIDTH, "shape": shape, "tied": True, "sha256": "0" * 64,
            "ansnet": None, "license": None, "chat": True,
        },
        "profile": {"context": 64},
        "graph": {
            "file": GRAPH, "opsets": {"": 18}, "inputs": ["input_ids", "attention_mask"], "outputs": ["logits"],
            "past": ["past_key_values.{layer}.key", "past_key_values.{layer}.value"],
            "present": ["present.{layer}.key", "present.{layer}.value"],
            "layers": 1, "kv_heads": 1, "head_dim": WIDTH,
        },
        "files": [],
        "versions": {},
        "parity": {**parity, "top1_agreement": 1.0, "loss_increase": 0.0, "tokens": 1},
        "quality": None,
        "eight_bits": [],
        "broken": [],
        "sample": {"prompt": [5, 7], "tokens": tokens, "margin": 0.1},
    }  # fmt: skip
