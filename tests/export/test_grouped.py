"""Attention as one operator of onnxruntime's: when it is used, and that it computes the same."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest

from colbuild.arch import ARCHITECTURES
from colbuild.export.graph.grouped_attention import can_group
from tests.export.helpers import export, failure, graph_of, manifest, saved
from tests.helpers.configs import random_config

HEADS = {"num_attention_heads": 6, "num_key_value_heads": 2, "head_dim": 16, "hidden_size": 96}
GROUPED = [name for name, table in ARCHITECTURES.items() if table.graph.grouped]


def config_of(name: str, **more: Any) -> dict[str, Any]:
    return random_config(name, 2) | HEADS | more


def packaged(config: dict[str, Any], folder: Path, **profile: Any) -> Path:
    model, _ = saved(config, folder / "model")
    return export(model, folder / "package", context=48, **profile)


def operators(package: Path) -> set[str]:
    return {node.op_type for node in graph_of(package).node}


def attentions(package: Path) -> list[onnx.NodeProto]:
    return [node for node in graph_of(package).node if node.op_type == "GroupQueryAttention"]


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
@pytest.mark.parametrize("name", GROUPED)
def test_it_counts_positions_itself_and_computes_what_pytorch_does(name: str, precision: str, tmp_path: Path):
    package = packaged(config_of(name), tmp_path, precision=precision)
    told = manifest(package)
    assert told["graph"]["in_place"]
    assert told["graph"]["inputs"] == ["input_ids", "attention_mask"]
    assert not operators(package) & {"Attention", "RotaryEmbedding"}
    assert told["parity"]["max_difference"] < (1e-3 if precision == "fp32" else 0.1)


@pytest.mark.parametrize(
    ("config", "profile"),
    [
        (config_of("llama", head_dim=8), {}),
        (config_of("llama"), {"operators": "standard"}),
        (config_of("llama"), {"static": {"sequence": 4}}),
        (config_of("gemma3_text"), {}),
    ],
    ids=["narrow heads", "standard operators", "fixed lengths", "windows of some layers"],
)
def test_elsewhere_attention_stays_onnxs(config: dict[str, Any], profile: dict[str, Any], tmp_path: Path):
    package = packaged(config, tmp_path, **profile)
    told = manifest(package)["graph"]
    assert not told["in_place"]
    assert told["inputs"] == ["input_ids", "attention_mask", "position_ids"]
    assert "Attention" in operators(package)


def test_angles_must_grow_evenly_with_the_position():
    scaled = {
        kind: config_of("llama", rope_parameters={"rope_type": kind}) for kind in ("linear", "dynamic", "longrope")
    }
    assert [kind for kind, config in scaled.items() if can_group(config, 16)] == ["linear"]


def test_a_window_is_kept(tmp_path: Path):
    windowed = packaged(config_of("mistral", sliding_window=5), tmp_path)
    assert manifest(windowed)["parity"]["max_difference"] < 1e-3


def test_a_window_that_the_operators_do_not_have_is_refused(tmp_path: Path):
    model, _ = saved(config_of("mistral", sliding_window=5), tmp_path / "model")
    error = failure(model, tmp_path / "refused", context=48, operators="standard")
    assert "has a window of 5 tokens, and the profile's context of 48 is longer" in str(error)
    assert error.hint is not None and "context: 5" in error.hint
    assert (
        manifest(export(model, tmp_path / "short", context=5, operators="standard"))["parity"]["max_difference"] < 1e-3
    )


def test_queries_keys_and_values_are_read_as_one_where_they_are_one(tmp_path: Path):
    for name, stacked in {"llama": True, "qwen3": False}.items():
        package = packaged(config_of(name, attention_bias=False), tmp_path / name, precision="int8")
        assert [node.input[1] == "" for node in attentions(package)] == [stacked] * len(attentions(package))


def test_results_that_nobody_reads_are_not_computed(tmp_path: Path):
    graph = graph_of(packaged(config_of("llama"), tmp_path))
    read = {name for node in graph.node for name in node.input} | {value.name for value in graph.output}
    assert {name for node in graph.node for name in node.output if name} <= read


def test_the_cache_is_written_in_place(tmp_path: Path):
    package = packaged(config_of("llama"), tmp_path)
    told = manifest(package)["graph"]
    session = onnxruntime.InferenceSession(package / told["file"], providers=["CPUExecutionProvider"])
    patterns = (told["past"], told["present"])
    past, present = ([name.format(layer=i) for i in range(told["layers"]) for name in names] for names in patterns)
    ids = np.random.default_rng(0).integers(0, 50, (1, 12))

    def logits(length: int | None) -> list[np.ndarray]:
        """Two tokens at a time, with a cache of some length, or one that grows."""
        shape = (1, told["kv_heads"], length or 0, told["head_dim"])
        cache = [onnxruntime.OrtValue.ortvalue_from_numpy(np.zeros(shape, np.float32)) for _ in past]
        found = []
        for start in range(0, ids.shape[1], 2):
            binding = session.io_binding()
            binding.bind_cpu_input("input_ids", ids[:, start : start + 2])
            binding.bind_cpu_input("attention_mask", np.ones((1, start + 2), np.int64))
            binding.bind_output("logits")
            for before, after, value in zip(past, present, cache, strict=True):
                binding.bind_ortvalue_input(before, value)
                if length:
                    binding.bind_ortvalue_output(after, value)
                else:
                    binding.bind_output(after)
            session.run_with_iobinding(binding)
            first, *rest = binding.get_outputs()
            found.append(first.numpy())
            cache = cache if length else rest
        return found

    assert np.abs(np.stack(logits(40)) - np.stack(logits(None))).max() < 1e-5
