"""An architecture is one file: a table that only this test knows goes all the way, and nothing else is told of it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from colbuild.arch import (
    ARCHITECTURES,
    Architecture,
    bridged,
    checked_structure,
    own_settings,
    parameters,
    read_structure,
    tensors,
)
from colbuild.arch import usual_block as usual
from colbuild.arch.correspondence import approximations, lost_biases
from colbuild.arch.setting_kinds import WIDTH
from colbuild.arch.solving import solve_down
from colbuild.arch.table import GraphFacts
from colbuild.arch.value_kinds import FLAG, SHARE
from colbuild.errors import BuildError
from colbuild.ops.shared.bridge_config import bridge_config
from colbuild.ops.shared.running_models import build_model
from colbuild.plan.workload.kept_activations import kept_bytes
from colbuild.weights.bridge.blocks import read_block, write_block
from colbuild.weights.bridge.transplant import transplant_body
from colbuild.weights.prefix.ordering import order
from colbuild.weights.prefix.subset import subset
from tests.export.helpers import export, manifest, saved
from tests.weights.helpers import (
    logits,
    random_checkpoint,
    random_importance,
    random_ordered,
    reference_model,
    smaller_shape,
)

NAME = "seed_oss"
TABLE = Architecture(
    name=NAME,
    model_class="SeedOssForCausalLM",
    config_keys=usual.KEYS,
    flags={"tie_word_embeddings": False, "attention_bias": True},
    settings={
        **usual.SETTINGS,
        "head_dim": WIDTH,
        "attention_bias": FLAG,
        "attention_out_bias": FLAG,
        "residual_dropout": SHARE,
        "mlp_bias": FLAG,
    },
    defaults={"head_dim": 128},
    accepts={"attention_out_bias": False, "mlp_bias": False},
    block={**usual.PARTS, **usual.BEFORE},
    graph=GraphFacts(grouped=True),
    prefix=usual.PREFIX,
    tensors=usual.table(
        usual.norm("input_layernorm"),
        *usual.ATTENTION,
        *usual.attention_biases(output=False),
        usual.norm("post_attention_layernorm"),
        *usual.MLP,
    ),
)
CONFIG = {
    "model_type": NAME,
    "vocab_size": 90,
    "hidden_size": 48,
    "intermediate_size": 40,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "max_position_embeddings": 64,
    "attention_bias": True,
    "attention_out_bias": False,
    "tie_word_embeddings": True,
    "bos_token_id": 1,
    "eos_token_id": 1,
    "pad_token_id": 0,
}


@pytest.fixture(autouse=True)
def registered(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a file in `colbuild/arch/known` does."""
    monkeypatch.setitem(ARCHITECTURES, NAME, TABLE)


def test_its_structure_and_counts_are_those_of_transformers():
    with torch.device("meta"):
        theirs = AutoModelForCausalLM.from_config(AutoConfig.for_model(**CONFIG))
    structure = checked_structure(CONFIG)
    assert {one.name: one.lengths for one in tensors(structure)} == {
        name: tuple(parameter.shape) for name, parameter in theirs.named_parameters()
    }
    assert parameters(structure) == sum(parameter.numel() for parameter in theirs.parameters())
    assert parameters(structure.at(solve_down(structure, structure.shape, 20_000))) == pytest.approx(20_000, rel=0.02)
    assert kept_bytes(structure, 64, 4) > 0


def test_its_settings_are_passed_on_and_looked_at():
    assert own_settings({**CONFIG, "anything": 1}) == CONFIG
    for key, value in {"head_dim": 15, "residual_dropout": 3, "attention_out_bias": True}.items():
        with pytest.raises(BuildError, match=key):
            checked_structure({**CONFIG, key: value})


def test_its_order_and_its_subsets_compute_what_they_should():
    before = random_checkpoint(CONFIG)
    after = order(before, random_importance(before))
    torch.testing.assert_close(logits(after), logits(before), rtol=1e-4, atol=1e-4)
    smaller = subset(after, smaller_shape(after, layers=2, ffn=16, hidden=32, kv_heads=1))
    assert reference_model(smaller).num_parameters() == parameters(smaller.structure)


def test_a_bridge_leads_from_it_and_to_it():
    own = random_ordered(CONFIG)
    written = write_block(own.structure, read_block(own.structure, own.tensors, 1), 1)
    assert all(torch.equal(tensor, own.tensors[name]) for name, tensor in written.items())
    for start, name in ((own, "llama"), (random_ordered({**CONFIG, "model_type": "qwen2"}), NAME)):
        structure = bridged(start.structure, ARCHITECTURES[name], start.structure.shape.vocab, None)
        assert not lost_biases(start.structure, structure)
        assert not approximations(start.structure, structure)
        config = bridge_config(start, structure, None)
        assert read_structure(config) == structure
        made = build_model(config, transplant_body(start, structure, 0), dtype=torch.float32)
        tokens = torch.randint(0, 90, (2, 16), generator=torch.Generator().manual_seed(99))
        with torch.no_grad():
            torch.testing.assert_close(made(input_ids=tokens).logits, logits(start), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("operators", ["contrib", "standard"])
def test_its_package_computes_what_pytorch_does(operators: str, tmp_path: Path):
    model, _ = saved(CONFIG, tmp_path / "model")
    told = manifest(export(model, tmp_path / "package", operators=operators, context=32))
    assert told["parity"]["max_difference"] < 1e-3
    assert told["graph"]["in_place"] == (operators == "contrib")
