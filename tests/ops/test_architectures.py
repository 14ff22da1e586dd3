"""A whole chain on every architecture, from a folder that transformers wrote to a DesNet that it loads strictly."""

from __future__ import annotations

import functools
import json
import shutil
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModelForCausalLM

from colbuild.arch import ARCHITECTURES, Shape, parameters
from colbuild.arch.solving import solve_between, solve_down
from colbuild.errors import BuildError
from colbuild.progress import silent
from colbuild.weights.files.checkpoint import load_checkpoint
from tests.helpers.steps import run_step
from tests.helpers.tiny import VOCABULARY, make_tiny_tokenizer
from tests.ops.family import carry_out, changed, interpolation_of, packed, recipe_of, room

OTHERS = [name for name in ARCHITECTURES if name != "llama"]


def _config(name: str) -> dict[str, object]:
    common = {"vocab_size": VOCABULARY, "bos_token_id": 0, "eos_token_id": 0, "initializer_range": 0.08}
    if name == "gpt2":
        return common | {"n_layer": 5, "n_embd": 48, "n_head": 6, "n_positions": 256}
    widths = {"num_hidden_layers": 5, "hidden_size": 48, "intermediate_size": 160, "num_attention_heads": 6}
    common |= widths | {"max_position_embeddings": 256, "pad_token_id": 0}
    if name == "gpt_neox":
        return common
    common |= {"num_key_value_heads": 3, "head_dim": 8}
    if name == "gemma3_text":
        # Sliding in three layers of four, so that dropping one shows.
        kinds = ["sliding_attention", "full_attention", "sliding_attention", "sliding_attention", "full_attention"]
        return common | {"layer_types": kinds, "sliding_window": 16, "query_pre_attn_scalar": 8}
    if name == "granite":
        scalars = {"embedding_multiplier": 6.0, "attention_multiplier": 0.25, "residual_multiplier": 0.4}
        return common | scalars | {"logits_scaling": 2.0}
    return common | ({"sliding_window": None} if name == "mistral" else {})


@functools.cache
def _raw(name: str) -> Path:
    folder = room() / f"raw-{name}"
    torch.manual_seed(1)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(name, **_config(name)))
    make_tiny_tokenizer(folder)
    model.save_pretrained(folder)
    return folder


@functools.cache
def _ansnet(name: str) -> Path:
    folder = room() / f"ansnet-{name}"
    folder.mkdir()
    run_step("source", {"raw": _raw(name)}, {}, folder, silent)
    return folder


@functools.cache
def _chain(name: str) -> tuple[Path, Path, Path, Shape]:
    """(ordered AnsNet, larger anchor, smaller anchor, a shape between these), sizes solved as a plan solves them."""
    ordered = carry_out("order", {"model": _ansnet(name), "corpus": packed()}, {"tokens": 512, "split": "train"})
    start = load_checkpoint(ordered).structure
    whole = parameters(start)
    high = solve_down(start, start.shape, int(whole * 0.75))
    low = solve_down(start, high, int(whole * 0.5))
    teacher, anchors = ordered, []
    for shape in (high, low):
        params = {"shape": asdict(shape), "recipe": recipe_of(), "split": "train"}
        teacher = carry_out("distill", {"teacher": teacher, "corpus": packed()}, params)
        anchors.append(teacher)
    return ordered, *anchors, solve_between(start, high, low, int(whole * 0.62))


def _loss(folder: Path) -> float:
    inputs = {"model": folder, "reference": folder, "corpus": packed()}
    made = carry_out("evaluate", inputs, {"tokens": 512, "split": "heldout"})
    found: float = json.loads((made / "metrics.json").read_text())["loss"]
    return found


def _loaded(folder: Path) -> AutoModelForCausalLM:
    model, facts = AutoModelForCausalLM.from_pretrained(folder, output_loading_info=True)
    assert not facts["missing_keys"]
    assert not facts["unexpected_keys"]
    assert not facts["mismatched_keys"]
    return model


@pytest.mark.parametrize("name", OTHERS)
def test_ordering_keeps_the_loss(name):
    ordered = _chain(name)[0]
    _loaded(ordered)
    assert _loss(ordered) == pytest.approx(_loss(_ansnet(name)), abs=5e-3)


@pytest.mark.parametrize("name", OTHERS)
def test_anchors_and_the_desnet_between_them_load_strictly(name):
    _, larger, smaller, shape = _chain(name)
    inputs = {"larger": larger, "smaller": smaller, "corpus": packed()}
    params = {"shape": asdict(shape), "method": "group_alpha", "tokens": 256, "split": "train"}
    made = carry_out("interpolate", inputs, params)
    sizes = [_loaded(folder).num_parameters() for folder in (larger, made, smaller)]
    assert sizes == sorted(sizes, reverse=True)
    told = interpolation_of(made)
    assert told["best"]["loss"] <= min(entry["loss"] for entry in told["candidates"] if "part" not in entry)


@pytest.mark.parametrize("name", OTHERS)
def test_an_elastic_segment_trains_its_sub_shapes(name):
    _, larger, smaller, shape = _chain(name)
    low = load_checkpoint(smaller).structure.shape
    recipe = recipe_of(elastic={"form": "segment", "share": 0.5})
    params = {"shape": asdict(low), "recipe": recipe, "split": "train"}
    anchor = carry_out("distill", {"teacher": larger, "corpus": packed()}, params)
    _loaded(anchor)
    _loaded(anchor / "nested")
    inputs = {"larger": larger, "smaller": anchor, "corpus": packed()}
    how = {"shape": asdict(shape), "method": "global_alpha", "tokens": 128, "split": "train"}
    found = interpolation_of(carry_out("interpolate", inputs, how))
    assert any(entry["nested"] for entry in found["candidates"])


def test_files_of_the_bare_model_and_old_buffers_are_read():
    raw = shutil.copytree(_raw("gpt2"), room() / "bare")
    bare = {name.removeprefix("transformer."): tensor for name, tensor in load_file(raw / "model.safetensors").items()}
    bare["h.0.attn.bias"] = torch.ones(1, 1, 256, 256)
    save_file(bare, raw / "model.safetensors", metadata={"format": "pt"})
    folder = room() / "bare-made"
    folder.mkdir()
    run_step("source", {"raw": raw}, {}, folder, silent)
    assert (folder / "model.safetensors").read_bytes() == (_ansnet("gpt2") / "model.safetensors").read_bytes()


def test_an_untied_head_keeps_the_name_that_it_has_in_files():
    with safe_open(_ansnet("gpt_neox") / "model.safetensors", "pt") as file:
        assert "embed_out.weight" in file.keys()  # noqa: SIM118


def test_kinds_of_layers_follow_the_layers_that_stay():
    ordered = load_checkpoint(_chain("gemma3_text")[0])
    anchor = load_checkpoint(_chain("gemma3_text")[1])
    kinds = [ordered.config["layer_types"][layer] for layer in anchor.ordered.layers]
    assert anchor.config["layer_types"] == kinds


def test_a_configuration_without_kinds_of_layers_gets_them_before_any_layer_goes():
    raw = shutil.copytree(_raw("gemma3_text"), room() / "unlisted")
    config = json.loads((raw / "config.json").read_text())
    del config["layer_types"]
    (raw / "config.json").write_text(json.dumps(config | {"sliding_window_pattern": 2}))
    folder = room() / "unlisted-made"
    folder.mkdir()
    run_step("source", {"raw": raw}, {}, folder, silent)
    kinds = json.loads((folder / "config.json").read_text())["layer_types"]
    assert kinds == ["sliding_attention", "full_attention"] * 2 + ["sliding_attention"]


def test_a_width_that_its_heads_do_not_make_is_refused():
    from colbuild.arch.solving import refusals

    start = load_checkpoint(_ansnet("gpt2")).structure
    assert refusals(replace(start.shape, heads=4, kv_heads=4, hidden=32), start) == []
    assert "gpt2 has no other width" in refusals(replace(start.shape, hidden=40), start)[0]


def test_nan_in_an_anchor_is_named_and_nothing_is_written():
    _, larger, smaller, shape = _chain("qwen3")
    first = torch.tensor([float("nan")])
    broken = changed(larger, "model.norm.weight", lambda weight: torch.cat([first, weight[1:]]))
    params = {"shape": asdict(shape), "method": "subset", "tokens": 128, "split": "train"}
    with pytest.raises(BuildError, match=rf"model\.norm\.weight in {broken}\S* contains NaN or infinite weights"):
        carry_out("interpolate", {"larger": broken, "smaller": smaller, "corpus": packed()}, params)
