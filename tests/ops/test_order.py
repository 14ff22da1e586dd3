"""The order step, end to end."""

from __future__ import annotations

import json

import pytest
import torch
from transformers import AutoModelForCausalLM

from colbuild.arch import read_structure
from colbuild.errors import BuildError
from colbuild.ops.shared.layer_ranking import rank_layers
from colbuild.ops.shared.running_models import calibration, model_of
from colbuild.progress import silent
from colbuild.train.loop.devices import forward_type
from colbuild.weights.files.checkpoint import load_checkpoint
from tests.helpers.tiny import make_tiny_model
from tests.ops.family import ansnet, carry_out, ordered, packed, progress_of, twice

PARAMS = {"tokens": 1024, "split": "train"}


def test_ordered_model_computes_what_the_ansnet_computes():
    tokens = torch.randint(0, 512, (2, 40), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        before, after = (
            AutoModelForCausalLM.from_pretrained(folder)(input_ids=tokens).logits for folder in (ansnet(), ordered())
        )
    torch.testing.assert_close(after, before, atol=1e-4, rtol=1e-4)


def test_output_is_a_model_with_its_lineage_and_tokenizer():
    names = {path.name for path in ordered().iterdir()}
    assert {"config.json", "model.safetensors", "lineage.json", "residual.safetensors", "tokenizer.json"} <= names
    lineage = load_checkpoint(ordered()).ordered
    assert lineage.layers == (0, 1, 2, 3)
    assert sorted(lineage.ranking) == [0, 1, 2, 3]
    assert lineage.residual.shape == (9, 48)
    assert (ordered() / "tokenizer.json").read_bytes() == (ansnet() / "tokenizer.json").read_bytes()


def test_weights_keep_their_type_and_something_moved():
    before, after = load_checkpoint(ansnet()).tensors, load_checkpoint(ordered()).tensors
    assert {name: tensor.dtype for name, tensor in after.items()} == {n: t.dtype for n, t in before.items()}
    assert not torch.equal(before["model.embed_tokens.weight"], after["model.embed_tokens.weight"])
    assert json.loads((ordered() / "config.json").read_text()) == json.loads((ansnet() / "config.json").read_text())


def test_same_inputs_give_the_same_bytes():
    first, second = twice("order", {"model": ansnet(), "corpus": packed()}, PARAMS)
    assert first == second


def test_progress_counts_tokens_and_then_ranked_layers():
    told = progress_of("order", {"model": ansnet(), "corpus": packed()}, PARAMS)
    layers = read_structure(json.loads((ansnet() / "config.json").read_text())).shape.layers
    removals = [(done, layers - 1, "layers") for done in range(1, layers)]
    assert [(one.done, one.total, one.unit) for one in told] == [
        (512, 1024, "tokens"),
        (1024, 1024, "tokens"),
        *removals,
    ]


def test_layers_are_ranked_by_removing_them_one_after_the_other():
    model = model_of(load_checkpoint(ansnet()), forward_type())
    text = calibration(packed(), "train", PARAMS["tokens"], model)
    expected = rank_layers(model, read_structure(model.config.to_dict()), text[:, :-1], silent)
    assert load_checkpoint(ordered()).ordered.ranking == expected


def test_folder_without_a_model_is_an_error(tmp_path):
    with pytest.raises(BuildError, match=r"config\.json"):
        carry_out("order", {"model": tmp_path, "corpus": packed()}, PARAMS)


def test_folder_without_a_corpus_is_an_error(tmp_path):
    with pytest.raises(BuildError, match="not a packed corpus"):
        carry_out("order", {"model": ansnet(), "corpus": tmp_path}, PARAMS)


def test_tokenizer_of_another_model_is_an_error(tmp_path):
    small = make_tiny_model(tmp_path / "small", layers=1, hidden=24, ffn=8, heads=3)
    model = AutoModelForCausalLM.from_pretrained(small)
    model.resize_token_embeddings(400)
    model.save_pretrained(small)
    with pytest.raises(BuildError, match=r"tokenizer has \d+ tokens, the model's embedding has 400"):
        carry_out("order", {"model": small, "corpus": packed()}, PARAMS)
