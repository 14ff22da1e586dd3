"""The interpolate step, end to end."""

from __future__ import annotations

import json
from dataclasses import fields

import pytest
import torch
from transformers import AutoModelForCausalLM

from colbuild.arch import Shape
from colbuild.errors import BuildError
from colbuild.ops.models import calibration, model_of
from colbuild.train.measure import mean_loss
from colbuild.weights.checkpoint import load_checkpoint, save_checkpoint, save_nested
from colbuild.weights.interpolate import Mix, mix, neighbours
from colbuild.weights.search import SEARCHES
from colbuild.weights.subset import subset
from tests.ops.family import between, carry_out, larger, packed, progress_of, smaller, twice
from tests.weights.helpers import retrained


@pytest.fixture(scope="module")
def desnet():
    return carry_out("interpolate", *between())


def facts_of(folder):
    return json.loads((folder / "interpolation.json").read_text())


def loss_of(folder, tokens=512):
    model = model_of(load_checkpoint(folder), torch.bfloat16)
    return mean_loss(model, calibration(packed(), "train", tokens, model))


def test_desnet_has_its_shape_and_transformers_loads_it_strictly(desnet):
    model, found = AutoModelForCausalLM.from_pretrained(desnet, output_loading_info=True)
    assert not found["unexpected_keys"]
    assert not found["missing_keys"]
    assert not found["mismatched_keys"]
    assert (model.config.num_hidden_layers, model.config.intermediate_size) == (3, 64)
    assert (desnet / "tokenizer.json").read_bytes() == (larger() / "tokenizer.json").read_bytes()


def test_best_candidate_is_the_lowest_and_the_one_that_was_written(desnet):
    facts = facts_of(desnet)
    assert facts["best"]["loss"] == min(candidate["loss"] for candidate in facts["candidates"])
    assert facts["best"] in facts["candidates"]
    assert loss_of(desnet) == facts["best"]["loss"]
    assert facts["tokens"] == 512
    how = Mix(**{field.name: facts["best"][field.name] for field in fields(Mix)})
    pair = neighbours(load_checkpoint(larger()), load_checkpoint(smaller()), Shape(**between()[1]["shape"]))
    expected = mix(pair, how)
    written = load_checkpoint(desnet).tensors
    assert all(torch.equal(written[name], tensor) for name, tensor in expected.items())


def test_desnet_is_never_worse_than_the_other_methods(desnet):
    best = facts_of(desnet)["best"]["loss"]
    for method in ("global_alpha", "subset", "expand"):
        assert best <= facts_of(carry_out("interpolate", *between(method)))["best"]["loss"]


def test_subset_method_is_the_larger_anchors_subset():
    inputs, params = between("subset")
    found = load_checkpoint(carry_out("interpolate", inputs, params))
    expected = subset(load_checkpoint(larger()), Shape(**params["shape"]))
    assert found.config == expected.config
    assert all(torch.equal(found.tensors[name], tensor) for name, tensor in expected.tensors.items())


def test_expand_method_computes_the_smaller_anchor():
    found = carry_out("interpolate", *between("expand", layers=2))
    tokens = torch.randint(0, 512, (2, 40), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        ours, theirs = (
            AutoModelForCausalLM.from_pretrained(folder)(input_ids=tokens).logits for folder in (found, smaller())
        )
    torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("method", sorted(SEARCHES))
def test_same_inputs_give_the_same_bytes(method):
    first, second = twice("interpolate", *between(method))
    assert first == second


def test_desnet_can_be_recovered_and_interpolated_from_again(desnet):
    lineage = load_checkpoint(desnet).ordered
    assert lineage.layers == load_checkpoint(larger()).ordered.layers
    assert lineage.residual.shape == (7, 48)


def test_shape_outside_the_anchors_is_an_error():
    with pytest.raises(BuildError, match="not inside"):
        carry_out("interpolate", *between(ffn=80))
    with pytest.raises(BuildError, match="not inside"):
        carry_out("interpolate", *between(layers=1))


def test_anchor_whose_weights_are_no_numbers_is_an_error(tmp_path):
    from safetensors.torch import load_file, save_file

    inputs, params = between("subset")
    for path in larger().iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    weights = load_file(larger() / "model.safetensors")
    weights["model.norm.weight"] = torch.full_like(weights["model.norm.weight"], float("nan"))
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(BuildError, match="nan"):
        carry_out("interpolate", inputs | {"larger": tmp_path}, params)


# -- with a nested student beside the smaller anchor --------------------------------------------------------------------


@pytest.fixture(scope="module")
def segment(tmp_path_factory):
    """The smaller anchor as a segment leaves it: cut from a student of the larger one's shape, which lies beside it."""
    folder = tmp_path_factory.mktemp("segment")
    student = retrained(load_checkpoint(larger()), seed=11, amount=0.02)
    save_checkpoint(subset(student, load_checkpoint(smaller()).structure.shape), folder, smaller())
    save_nested(student, folder)
    return folder


def with_segment(segment, method="group_alpha", **lengths):
    inputs, params = between(method, **lengths)
    return inputs | {"smaller": segment}, params


def test_the_nested_students_prefix_is_a_candidate(segment):
    found = carry_out("interpolate", *with_segment(segment))
    facts = facts_of(found)
    nested = [candidate for candidate in facts["candidates"] if candidate["nested"]]
    assert {candidate["mlp"] for candidate in nested} >= {0.25, 0.5, 0.75, 1.0}
    assert facts["best"]["loss"] == min(candidate["loss"] for candidate in facts["candidates"])
    assert loss_of(found) == facts["best"]["loss"]


def test_a_nested_student_leaves_every_other_candidate_as_it_is(segment, tmp_path):
    alone = tmp_path / "alone"
    alone.mkdir()
    save_checkpoint(load_checkpoint(segment), alone, segment)
    without, having = (facts_of(carry_out("interpolate", *with_segment(folder))) for folder in (alone, segment))
    assert [candidate for candidate in having["candidates"] if not candidate["nested"]] == without["candidates"]
    assert having["best"]["loss"] <= without["best"]["loss"]


def test_a_nested_prefix_that_is_best_is_what_is_written(tmp_path):
    # The larger anchor is spoilt and the student is not, so its prefix is by far the best.
    student, spoilt = load_checkpoint(larger()), retrained(load_checkpoint(larger()), seed=12, amount=1.0)
    segment, above = tmp_path / "segment", tmp_path / "above"
    for folder, model in ((segment, subset(student, Shape(**between(layers=2, ffn=48)[1]["shape"]))), (above, spoilt)):
        folder.mkdir()
        save_checkpoint(model, folder, larger())
    save_nested(student, segment)
    inputs, params = with_segment(segment, "global_alpha")
    found = carry_out("interpolate", inputs | {"larger": above}, params)
    assert facts_of(found)["best"]["nested"] is True
    how = Mix(**{field.name: facts_of(found)["best"][field.name] for field in fields(Mix)})
    pair = neighbours(spoilt, load_checkpoint(segment), Shape(**params["shape"]), student)
    expected, written = mix(pair, how), load_checkpoint(found).tensors
    assert all(torch.equal(written[name], tensor) for name, tensor in expected.items())


@pytest.mark.parametrize("method", ["subset", "expand"])
def test_methods_of_one_candidate_mean_what_they_did(segment, method):
    found = carry_out("interpolate", *with_segment(segment, method))
    assert [candidate["nested"] for candidate in facts_of(found)["candidates"]] == [False]
    assert not (found / "nested").exists()


def test_progress_counts_candidates(desnet):
    told = progress_of("interpolate", *between())
    assert [entry.done for entry in told] == list(range(1, len(facts_of(desnet)["candidates"]) + 1))
    assert {entry.unit for entry in told} == {"candidates"}
