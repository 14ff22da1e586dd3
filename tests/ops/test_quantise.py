"""A model rounded to few bits and trained to live with it: what is trained, what stays, and what reaches the package."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import numpy
import onnxruntime
import pytest
import torch

from colbuild.arch import ARCHITECTURES
from colbuild.errors import StoppedError
from colbuild.export.graph.decoder import decoder_graph, matrix_origins
from colbuild.export.graph.graph_nodes import linears, lookups
from colbuild.export.manifest import read_manifest
from colbuild.export.rounding.block_rounding import Blocks, round_blocks
from colbuild.export.rounding.fitting import fit
from colbuild.export.rounding.matrix_statistics import gather
from colbuild.export.rounding.rounded_file import read_rounded
from colbuild.export.rounding.scaled import ScaledParameters, scaled_parameters
from colbuild.hashing import scan_tree
from colbuild.ops.shared.running_models import build_model, model_of
from colbuild.plan.workload.training import recipe_params
from colbuild.progress import silent
from colbuild.spec.model.device import Device, Recovery
from colbuild.weights.files.checkpoint import Checkpoint, load_checkpoint
from tests.export.helpers import manifest
from tests.helpers.configs import random_config
from tests.helpers.steps import run_step
from tests.ops.family import ansnet, noting, packed, room, training_of
from tests.weights.helpers import random_checkpoint

STEPS = 32
PROFILE = {"precision": "int4", "block": 16, "calibration": 512, "context": 256}


def params_of(bits: int = 8, **recovery: Any) -> dict[str, Any]:
    asked = Recovery(**{"tokens": STEPS * 256, "sequence": 64, "batch": 4, "lr": 1e-3} | recovery)
    profile = PROFILE | {"embedding_bits": bits}
    return {"profile": profile, "recipe": recipe_params(asked.recipe()), "split": "train"}


def quantise(output: Path, bits: int = 8, **recovery: Any) -> Path:
    output.mkdir(parents=True)
    run_step(
        "quantise", {"model": ansnet(), "corpus": packed()}, params_of(bits, **recovery), output, note=noting(output)
    )
    return output


@cache
def quantised() -> Path:
    return quantise(room() / "quantised")


def package(output: Path, rounded: Path | None, **profile: Any) -> Path:
    output.mkdir()
    inputs = {"model": ansnet(), "heldout": packed()}
    inputs |= {"corpus": packed()} if rounded is None else {"rounded": rounded}
    asked = {"profile": PROFILE | profile, "versions": {}, "split": "train", "heldout_split": "heldout"}
    run_step("export", inputs, asked, output)
    return output


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("name", sorted(ARCHITECTURES))
def test_every_matrix_of_a_graph_is_rows_of_a_parameter(name: str, seed: int):
    checkpoint = random_checkpoint(random_config(name, seed))
    origins = matrix_origins(checkpoint.config, checkpoint.tensors)
    decoder = decoder_graph(checkpoint.config, checkpoint.tensors, 64)
    read = {use.weight for use in (*linears(decoder.model.graph), *lookups(decoder.model.graph))}
    seen: dict[str, int] = {}
    for matrix in read:
        origin = origins[matrix]
        tensor = checkpoint.tensors[origin.parameter]
        upright = tensor.T if origin.turned else tensor
        weight = decoder.weights[matrix]
        # A table of positions ends at the context.
        assert torch.equal(weight, upright[origin.rows][: len(weight)]), matrix
        seen[origin.parameter] = seen.get(origin.parameter, 0) + len(origin.rows)
    matrices = {key: tensor for key, tensor in checkpoint.tensors.items() if tensor.ndim == 2}
    assert seen.keys() == matrices.keys()
    assert all(seen[key] in tensor.shape for key, tensor in matrices.items())


def scaled(name: str) -> tuple[Checkpoint, dict[str, Blocks], ScaledParameters]:
    """A random model, its matrices rounded, and what is trained of it."""
    checkpoint = random_checkpoint(random_config(name, 3))
    decoder = decoder_graph(checkpoint.config, checkpoint.tensors, 32)
    device = Device(precision="int4", block=16, keep_8bit=("up", "query"))
    model = build_model(checkpoint.config, checkpoint.tensors, dtype=torch.float32)
    text = torch.randint(0, checkpoint.structure.shape.vocab, (2, 17), generator=torch.Generator().manual_seed(0))
    fitted = fit(decoder, device, gather(model, checkpoint.structure, text, silent), None, silent)
    vectors = {key: tensor for key, tensor in checkpoint.tensors.items() if tensor.ndim == 1}
    origins = matrix_origins(checkpoint.config, checkpoint.tensors)
    return checkpoint, fitted.rounded, scaled_parameters(fitted.rounded, origins, vectors)


def gains_of(checkpoint: Checkpoint, parameters: ScaledParameters, size: float) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(8)
    names = [*parameters.parts, *parameters.vectors]
    zeros = {name: parameters.start(name, checkpoint.tensors[name]) for name in names}
    return {name: size * torch.randn(zero.shape, generator=generator) for name, zero in zeros.items()}


@pytest.mark.parametrize("size", [0.0, 0.1])
@pytest.mark.parametrize("name", ["llama", "gpt2", "gpt_neox", "gemma3_text"])
def test_what_is_trained_is_the_graphs_matrices(name: str, size: float):
    checkpoint, rounded, parameters = scaled(name)
    gains = gains_of(checkpoint, parameters, size)
    tensors = {key: parameters.computed(key, each) for key, each in gains.items()}
    assert {key: tensor.shape for key, tensor in tensors.items()} == {
        key: checkpoint.tensors[key].shape for key in gains
    }
    again = decoder_graph(checkpoint.config, {**checkpoint.tensors, **tensors}, 32).weights
    matrices = parameters.matrices(gains)
    assert matrices.keys() == rounded.keys()
    for matrix, blocks in matrices.items():
        assert torch.equal(again[matrix], blocks.values()), matrix
        assert torch.equal(blocks.codes, rounded[matrix].codes)
        assert torch.equal(blocks.scales, rounded[matrix].scales) == (size == 0.0)
    for key, vector in parameters.vectors.items():
        assert torch.equal(tensors[key], vector) == (size == 0.0 or not vector.any())


@pytest.mark.parametrize("name", ["llama", "gpt2", "gpt_neox"])
def test_gradients_reach_what_is_trained(name: str):
    checkpoint, _, parameters = scaled(name)
    generator = torch.Generator().manual_seed(2)
    for key, gains in gains_of(checkpoint, parameters, 0.05).items():
        gains.requires_grad_()
        weight = parameters.computed(key, gains)
        pulled = torch.randn(weight.shape, generator=generator)
        weight.backward(pulled)
        assert gains.grad is not None
        torch.testing.assert_close(parameters.gradient(key, pulled), gains.grad, rtol=1e-4, atol=1e-5)


def test_training_brings_the_rounded_model_closer_to_itself(tmp_path: Path):
    still = quantise(tmp_path / "still", lr=1e-12, tokens=256)
    before, after = (training_of(one)["heldout"]["kl"] for one in (still, quantised()))
    assert after < 0.85 * before
    plain, trained = (package(tmp_path / name, rounded) for name, rounded in (("a", None), ("b", quantised())))
    # As many bits, and the same bytes but for what they hold.
    sizes = [sum(file["size"] for file in manifest(one)["files"] if "onnx" in file["path"]) for one in (plain, trained)]
    assert sizes[0] == sizes[1]
    assert manifest(trained)["eight_bits"] == manifest(plain)["eight_bits"] == ["model.embed_tokens.weight"]


def test_the_package_computes_what_was_trained(tmp_path: Path):
    """With ONNX's own operators, which multiply what is dequantised in float32."""
    folder = package(tmp_path / "package", quantised(), operators="standard")
    checkpoint = load_checkpoint(ansnet())
    fitted, vectors = read_rounded(quantised(), checkpoint.tensors)
    assert set(vectors) == {name for name, tensor in checkpoint.tensors.items() if tensor.ndim == 1}
    assert any(not torch.equal(vector, checkpoint.tensors[name].float()) for name, vector in vectors.items())
    tensors = {
        name: round_blocks(tensor.float(), 8, 16).values()
        for name, tensor in checkpoint.tensors.items()
        if name in fitted.eight
    }
    tensors |= vectors | {name: blocks.values() for name, blocks in fitted.rounded.items()}
    model = build_model(checkpoint.config, tensors, dtype=torch.float32)
    tokens = torch.arange(5, 45)
    with torch.no_grad():
        expected = model(input_ids=tokens[None]).logits[0].numpy()
    assert abs(_logits(folder, tokens.tolist()) - expected).max() < 1e-4


def _logits(folder: Path, tokens: list[int]) -> numpy.ndarray:
    """A package's, as its graph says it: optimised, some products would round what they multiply, too."""
    graph = read_manifest(folder).graph
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(folder / graph.file, options, providers=["CPUExecutionProvider"])
    nothing = numpy.zeros((1, graph.kv_heads, 0, graph.head_dim), numpy.float32)
    feeds = {"input_ids": [tokens], "attention_mask": [[1] * len(tokens)], "position_ids": [list(range(len(tokens)))]}
    whole = {name: numpy.array(feeds[name]) for name in graph.inputs} | dict.fromkeys(graph.names(graph.past), nothing)
    logits: numpy.ndarray = session.run(["logits"], whole)[0][0]
    return logits


def test_a_training_that_barely_moves_leaves_what_was_fitted(tmp_path: Path):
    still = quantise(tmp_path / "still", lr=1e-12, tokens=256)
    checkpoint = load_checkpoint(ansnet())
    decoder = decoder_graph(checkpoint.config, checkpoint.tensors, 256)
    fitted, _ = read_rounded(still, decoder.weights)
    assert manifest(package(tmp_path / "a", still))["parity"] == manifest(package(tmp_path / "b", None))["parity"]
    assert fitted.fixed == {"model.embed_tokens.weight"}


def test_embedding_and_head_in_4_bits_stay_as_they_were_fitted(tmp_path: Path):
    trained, still = quantise(tmp_path / "trained", 4), quantise(tmp_path / "still", 4, lr=1e-12, tokens=256)
    weights = load_checkpoint(ansnet()).tensors
    [(after, _), (before, _)] = [read_rounded(folder, weights) for folder in (trained, still)]
    table, body = "model.embed_tokens.weight", "model.layers.0.mlp.up_proj.weight"
    assert after.rounded[table].bits == 4
    assert after.fixed == frozenset()
    assert torch.equal(after.rounded[table].scales, before.rounded[table].scales)
    assert not torch.equal(after.rounded[body].scales, before.rounded[body].scales)
    made, plain = package(tmp_path / "a", still, embedding_bits=4), package(tmp_path / "b", None, embedding_bits=4)
    assert manifest(made)["parity"] == manifest(plain)["parity"]
    assert manifest(made)["eight_bits"] == []
    # What was trained for knew the rounded tables.
    told = [training_of(folder)["heldout"]["kl"] for folder in (trained, still)]
    assert told[0] < 0.85 * told[1]


def test_stopped_and_resumed_equals_uninterrupted(tmp_path: Path):
    partial, output = tmp_path / "partial", tmp_path / "output"
    for folder in (partial, output):
        folder.mkdir()
    inputs, asked = {"model": ansnet(), "corpus": packed()}, iter(range(10**6))
    with pytest.raises(StoppedError):
        run_step("quantise", inputs, params_of(), output, silent, partial, 1e9, lambda: next(asked) >= 5)
    assert not any(output.iterdir())
    run_step("quantise", inputs, params_of(), output, silent, partial, 1e9)
    assert scan_tree(output) == scan_tree(quantised())


def test_the_model_itself_is_left_as_it_is():
    before = {entry.path: entry.sha256 for entry in scan_tree(ansnet())}
    quantised()
    assert {entry.path: entry.sha256 for entry in scan_tree(ansnet())} == before
    assert model_of(load_checkpoint(ansnet()), torch.float32) is not None
