"""The graph of every architecture, with either set of operators, against PyTorch."""

from __future__ import annotations

from pathlib import Path

import pytest

from colbuild.arch import ARCHITECTURES
from colbuild.export.graph.decoder import decoder_graph
from tests.export.helpers import export, graph_of, manifest, saved
from tests.helpers.configs import random_config
from tests.weights.helpers import random_checkpoint

EVERY = [(name, seed) for name in ARCHITECTURES for seed in range(3)]
OTHERS = {
    "gpt_neox": [{"use_parallel_residual": False}, {"rotary_pct": 1.0}],
    "gemma3_text": [{"query_pre_attn_scalar": 100}],
    "qwen3": [{"rope_theta": 1_000_000.0}],
}


@pytest.mark.parametrize("operators", ["contrib", "standard"])
@pytest.mark.parametrize(("name", "seed"), EVERY)
def test_it_computes_what_pytorch_does(name: str, seed: int, operators: str, tmp_path: Path):
    model, _ = saved(random_config(name, seed), tmp_path / "model", seed)
    told = manifest(export(model, tmp_path / "package", operators=operators, context=32))
    assert told["parity"]["max_difference"] < 1e-3
    assert told["parity"]["prompts"].keys() >= {"batch, padded on the left, in pieces", "token by token"}


@pytest.mark.parametrize(("name", "settings"), [(name, one) for name, every in OTHERS.items() for one in every])
def test_its_other_forms_too(name: str, settings: dict, tmp_path: Path):
    model, _ = saved(random_config(name, 1) | settings, tmp_path / "model")
    assert manifest(export(model, tmp_path / "package", context=32))["parity"]["max_difference"] < 1e-3


def test_standard_operators_are_onnxs_alone(tmp_path: Path):
    model, _ = saved(random_config("qwen3", 0), tmp_path / "model")
    for precision in ("fp32", "int8"):
        package = export(model, tmp_path / precision, operators="standard", context=32, precision=precision)
        assert {node.domain for node in graph_of(package).node} == {""}
        assert set(manifest(package)["graph"]["opsets"]) == {""}


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_a_tied_head_and_embedding_are_one_tensor(name: str):
    config = random_config(name, 0) | {"tie_word_embeddings": True, "vocab_size": 299}
    checkpoint = random_checkpoint(config)
    decoder = decoder_graph(checkpoint.config, checkpoint.tensors, 32)
    named = [name for name, value in decoder.model.graph.initializers.items() if value.const_value is None]
    assert sum(decoder.weights[name].shape[0] == 299 for name in named) == 1
    assert set(named) == set(decoder.weights)


def test_learned_positions_end_with_the_context(tmp_path: Path):
    model, _ = saved(random_config("gpt2", 0), tmp_path / "model")
    package = export(model, tmp_path / "package", context=16)
    [table] = [one for one in graph_of(package).initializer if "wpe" in one.name]
    assert table.dims[0] == 16
