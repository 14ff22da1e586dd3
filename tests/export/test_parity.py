"""A package that computes something else than the model is never published."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy
import pytest
import torch

from colbuild.errors import BuildError
from colbuild.export.graph import decoder
from colbuild.export.graph.graph_nodes import set_value
from colbuild.export.package import packaging as package
from colbuild.export.package.packaging import build_package, exported_model
from colbuild.export.package.parity import parity_prompts
from colbuild.export.runtime.running import open_package
from colbuild.export.runtime.session import generate_tokens
from colbuild.ops.shared.running_models import model_of
from colbuild.progress import silent
from colbuild.spec.model.device import Device
from colbuild.weights.files.checkpoint import load_checkpoint
from tests.export.helpers import CONTEXT, failure, manifest


def test_fp32_logits_equal_pytorch_on_every_prompt(fp32_package: Path):
    parity = manifest(fp32_package)["parity"]
    assert set(parity["prompts"]) == {
        "short",
        "long",
        "batch, padded on the left",
        "batch, padded on the left, in pieces",
        "token by token",
        "English",
    }
    assert max(parity["prompts"].values()) == parity["max_difference"] < 1e-4
    assert parity["top1_agreement"] == 1.0


def test_int8_is_close_and_its_distance_is_recorded(int8_package: Path):
    parity = manifest(int8_package)["parity"]
    assert 0.001 < parity["relative_error"] < 0.1
    assert 0.0 < parity["mean_kl"] < 0.01
    assert parity["top1_agreement"] > 0.8
    assert abs(parity["loss_increase"]) < 0.02


def test_difference_from_pytorch_fails_and_names_the_prompt(tiny_model: Path, tmp_path: Path):
    checkpoint = load_checkpoint(tiny_model)

    def slightly_other(dtype: torch.dtype) -> Any:
        model = model_of(checkpoint, dtype)
        with torch.no_grad():
            model.model.layers[3].mlp.down_proj.weight[5] += 0.01
        return model

    with pytest.raises(
        BuildError, match=r"largest difference of a logit is 0\.\d+, and at most 0.001.*on the prompt '\w+"
    ):
        build_package(exported_model(tiny_model, slightly_other), Device(context=CONTEXT), {}, tmp_path, silent)


def test_wrong_rotary_positions_are_noticed(tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    real = package.decoder_graph

    def shifted(*asked: Any, **named: Any) -> Any:
        found = real(*asked, **named)
        table = found.model.graph.initializers["model.rotary_emb.sin_cache"]
        set_value(table, numpy.roll(table.const_value.numpy(), 1, 0))
        return found

    monkeypatch.setattr(package, "decoder_graph", shifted)
    assert "differ from the PyTorch" in failure(tiny_model, tmp_path / "package").message


@pytest.mark.parametrize("broken", ["scales", "bytes"])
def test_broken_quantisation_fails(broken: str, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    real = package.round_blocks

    def spoiled(weight: torch.Tensor, bits: int, block: int) -> Any:
        found = real(weight, bits, block)
        changed = {"scales": found.scales.flip(0)} if broken == "scales" else {"codes": found.codes ^ 64}
        return replace(found, **changed)

    monkeypatch.setattr(package, "round_blocks", spoiled)
    error = failure(tiny_model, tmp_path / "package", precision="int8")
    assert "relative error of the logits" in error.message


def test_nan_fails_the_export(tiny_model: Path, tmp_path: Path):
    checkpoint = load_checkpoint(tiny_model)

    def model_with_nan(dtype: torch.dtype) -> Any:
        model = model_of(checkpoint, dtype)
        with torch.no_grad():
            model.model.norm.weight[0] = float("nan")
        return model

    for precision in ("fp32", "int8"):
        exported = exported_model(tiny_model, model_with_nan)
        profile = Device(context=CONTEXT, precision=precision)
        with pytest.raises(BuildError, match="the PyTorch model gives NaN or infinite logits"):
            build_package(exported, profile, {}, tmp_path / precision, silent)


def test_prompts_are_the_same_every_time_and_fit_the_context():
    for context in (3, 20, 2048):
        first, second = parity_prompts(100, context, None), parity_prompts(100, context, None)
        for one, other in zip(first, second, strict=True):
            assert numpy.array_equal(one.ids, other.ids)
            assert one.ids.shape[1] == sum(one.pieces) <= context


def test_sample_can_be_repeated_from_the_package(int8_package: Path):
    opened = open_package(int8_package, threads=1)
    sample = opened.manifest.sample
    again = generate_tokens(opened.decoder, sample.prompt, lambda logits: int(logits.argmax()), len(sample.tokens))
    assert tuple(again) == sample.tokens


def test_graph_that_leaves_out_a_tensor_fails(tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    real = decoder._tie

    def without_a_norm(model: Any, *more: Any) -> None:
        real(model, *more)
        del model.graph.initializers["model.norm.weight"]

    monkeypatch.setattr(decoder, "_tie", without_a_norm)
    assert "differ in these tensors: model.norm.weight" in failure(tiny_model, tmp_path / "package").message
