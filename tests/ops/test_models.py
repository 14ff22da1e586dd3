"""Checkpoints as running models: nothing is left uninitialised, nothing is shared with the file."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from colbuild.errors import BuildError
from colbuild.ops.shared.running_models import build_model, calibration, check_vocabulary, model_of
from colbuild.plan.workload.at_once import WINDOW
from colbuild.train.corpus.packing import open_corpus
from colbuild.weights.files.checkpoint import load_checkpoint
from tests.helpers.configs import random_llama_config
from tests.ops.family import ansnet, ordered, packed
from tests.weights.helpers import GQA, logits, random_checkpoint

TOKENS = torch.randint(0, 70, (2, 16), generator=torch.Generator().manual_seed(99))
ROPES = {
    "plain": {"rope_theta": 500.0},
    "llama3": {
        "rope_parameters": {
            "rope_type": "llama3",
            "rope_theta": 500.0,
            "factor": 8.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 32,
        }
    },
    "yarn": {
        "rope_parameters": {
            "rope_type": "yarn",
            "rope_theta": 500.0,
            "factor": 2.0,
            "original_max_position_embeddings": 32,
        }
    },
    "dynamic": {"rope_parameters": {"rope_type": "dynamic", "rope_theta": 500.0, "factor": 2.0}},
}


@pytest.mark.parametrize("seed", range(6))
def test_model_computes_what_transformers_computes(seed):
    checkpoint = random_checkpoint(random_llama_config(seed), seed)
    tokens = torch.randint(0, checkpoint.structure.shape.vocab, (2, 16), generator=torch.Generator().manual_seed(99))
    with torch.no_grad():
        found = model_of(checkpoint, torch.float32)(input_ids=tokens).logits
    assert torch.equal(found, logits(checkpoint))


@pytest.mark.parametrize("rope", sorted(ROPES))
def test_rotary_positions_are_those_of_the_configuration(rope):
    checkpoint = random_checkpoint(GQA | ROPES[rope])
    with torch.no_grad():
        found = model_of(checkpoint, torch.float32)(input_ids=TOKENS).logits
    assert torch.equal(found, logits(checkpoint))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_every_parameter_and_buffer_is_that_of_a_model_loaded_by_transformers(dtype):
    loaded = AutoModelForCausalLM.from_pretrained(ansnet(), dtype=dtype)
    built = model_of(load_checkpoint(ansnet()), dtype)
    for kind in ("named_parameters", "named_buffers"):
        expected, found = dict(getattr(loaded, kind)()), dict(getattr(built, kind)())
        assert found.keys() == expected.keys()
        for name, tensor in found.items():
            assert tensor.device.type == "cpu"
            assert tensor.dtype == expected[name].dtype
            assert torch.equal(tensor, expected[name]), name
    assert not built.training


def test_a_tied_head_is_the_embedding():
    model = model_of(random_checkpoint(GQA), torch.bfloat16)
    assert model.lm_head.weight is model.model.embed_tokens.weight


def test_an_untied_head_is_its_own():
    model = model_of(random_checkpoint(GQA | {"tie_word_embeddings": False}), torch.bfloat16)
    assert model.lm_head.weight is not model.model.embed_tokens.weight


def test_changing_the_model_leaves_the_checkpoint_alone():
    checkpoint = random_checkpoint(GQA)
    before = checkpoint.tensors["model.norm.weight"].clone()
    with torch.no_grad():
        for parameter in model_of(checkpoint, torch.float32).parameters():
            parameter.zero_()
    assert torch.equal(checkpoint.tensors["model.norm.weight"], before)


def test_weights_of_another_configuration_are_an_error():
    checkpoint = random_checkpoint(GQA)
    lacking = {name: tensor for name, tensor in checkpoint.tensors.items() if "norm" not in name}
    with pytest.raises(BuildError, match=r"model\.layers\.0\.input_layernorm\.weight"):
        build_model(checkpoint.config, lacking, dtype=torch.float32)


def test_calibration_windows_are_the_same_each_time_and_as_many_as_asked():
    model = model_of(load_checkpoint(ordered()), torch.bfloat16)
    first, second = (calibration(packed(), "train", 2048, model) for _ in range(2))
    assert torch.equal(first, second)
    assert first.shape == (2048 // WINDOW, WINDOW + 1)


def test_calibration_windows_fit_into_a_short_model_and_a_small_corpus():
    short = model_of(random_checkpoint(GQA | {"vocab_size": 512}), torch.bfloat16)
    assert calibration(packed(), "train", 256, short).shape == (4, 64 + 1)
    model = model_of(load_checkpoint(ordered()), torch.bfloat16)
    heldout = open_corpus(packed(), "heldout").tokens
    assert calibration(packed(), "heldout", heldout, model).numel() <= heldout + heldout // WINDOW


def test_fewer_tokens_than_are_asked_for_are_an_error():
    model = model_of(load_checkpoint(ordered()), torch.float32)
    with pytest.raises(BuildError, match=r"too few to calibrate on 1,000,000,000") as found:
        calibration(packed(), "heldout", 10**9, model)
    assert "fewer 'tokens'" in str(found.value.hint)


def test_tokens_outside_the_embedding_are_an_error():
    model = model_of(random_checkpoint(GQA), torch.bfloat16)
    check_vocabulary(70, model)
    with pytest.raises(BuildError, match=r"71 tokens.*embedding has 70"):
        check_vocabulary(71, model)
    with pytest.raises(BuildError, match="embedding has 70"):
        calibration(packed(), "train", 256, model)
    assert np.max(open_corpus(packed(), "train").read(0, 10**6)) >= 70
