"""Checkpoints on disk: the same bytes every time, strict both ways, and clear about damage."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch
from safetensors import safe_open
from transformers import AutoModelForCausalLM

from colbuild.errors import BuildError
from colbuild.hashing import scan_tree
from colbuild.weights.files.checkpoint import (
    COMPANIONS,
    check_tensors,
    load_checkpoint,
    load_nested,
    save_checkpoint,
    save_nested,
)
from colbuild.weights.prefix.subset import subset
from tests.helpers.tiny import make_tiny_model
from tests.weights.helpers import GQA, config_of, logits, random_checkpoint, random_ordered, shaped, smaller_shape


@pytest.fixture
def nothing(tmp_path):
    """A folder without any companion."""
    (tmp_path / "nothing").mkdir()
    return tmp_path / "nothing"


def saved(checkpoint, folder, companions):
    folder.mkdir()
    save_checkpoint(checkpoint, folder, companions)
    return folder


def damaged(tmp_path, nothing, **files):
    """A saved ordered model with some files replaced (None: removed); `config` stands for config.json and so on."""
    names = {"config": "config.json", "lineage": "lineage.json"}
    folder = saved(random_ordered(), tmp_path / "damaged", nothing)
    for key, content in files.items():
        path = folder / names.get(key, f"{key}.safetensors")
        if content is None:
            path.unlink()
        else:
            path.write_bytes(content)
    return folder


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_round_trip_keeps_every_byte(tmp_path, nothing, dtype):
    checkpoint = random_ordered(dtype=dtype)
    first = saved(checkpoint, tmp_path / "a", nothing)
    loaded = load_checkpoint(first)
    assert loaded.config == checkpoint.config
    assert loaded.structure == checkpoint.structure
    assert loaded.ordered.layers == checkpoint.ordered.layers
    assert loaded.ordered.ranking == checkpoint.ordered.ranking
    assert torch.equal(loaded.ordered.residual, checkpoint.ordered.residual)
    assert all(torch.equal(loaded.tensors[name], tensor) for name, tensor in checkpoint.tensors.items())
    assert {tensor.dtype for tensor in loaded.tensors.values()} == {dtype}
    assert scan_tree(first) == scan_tree(saved(loaded, tmp_path / "b", first))


def test_energies_of_heads_are_kept_and_belong_to_a_model_with_norms_over_all_heads(tmp_path, nothing):
    checkpoint = random_ordered(config_of("olmo2"))
    loaded = load_checkpoint(saved(checkpoint, tmp_path / "a", nothing))
    assert torch.equal(loaded.ordered.heads, checkpoint.ordered.heads)
    fewer = subset(loaded, smaller_shape(loaded, layers=2, kv_heads=1))
    assert fewer.ordered.heads.shape == (4, 1)
    assert load_checkpoint(saved(fewer, tmp_path / "b", nothing)).ordered.heads.shape == (4, 1)
    without = replace(checkpoint, lineage=replace(checkpoint.ordered, heads=None))
    with pytest.raises(BuildError, match="belongs to another model"):
        load_checkpoint(saved(without, tmp_path / "c", nothing))


def test_weights_hold_one_metadata_key(tmp_path, nothing):
    # More than one are written in random order.
    folder = saved(random_ordered(), tmp_path / "a", nothing)
    for name in ("model.safetensors", "residual.safetensors"):
        with safe_open(folder / name, "pt") as file:
            assert len(file.metadata() or {}) <= 1


def test_a_view_of_a_loaded_model_is_saved_as_itself(tmp_path, nothing):
    # Memory-mapped tensors and slices of them share storage, which safetensors refuses unless they are apart.
    loaded = load_checkpoint(saved(random_ordered(), tmp_path / "a", nothing))
    small = subset(loaded, shaped(loaded, layers=2, hidden=24, ffn=16))
    found = load_checkpoint(saved(small, tmp_path / "b", nothing))
    assert all(torch.equal(found.tensors[name], tensor) for name, tensor in small.tensors.items())


def test_a_nested_student_lies_beside_the_model_cut_from_it(tmp_path):
    tokenizer = make_tiny_model(tmp_path / "tiny", layers=1, hidden=48, ffn=16, heads=6, kv_heads=3)
    student = random_ordered()
    folder = saved(subset(student, shaped(student, layers=2, ffn=16)), tmp_path / "anchor", tokenizer)
    assert load_nested(folder) is None
    save_nested(student, folder)
    found = load_nested(folder)
    assert found.structure == student.structure
    assert found.ordered.ranking == load_checkpoint(folder).ordered.ranking
    assert all(torch.equal(found.tensors[name], tensor) for name, tensor in student.tensors.items())
    assert (folder / "tokenizer.json").exists()
    assert not any((folder / "nested" / name).exists() for name in COMPANIONS)
    # It is in nobody's way: the folder is still a model that transformers loads.
    assert AutoModelForCausalLM.from_pretrained(folder).config.num_hidden_layers == 2


@pytest.mark.parametrize("tied", [True, False])
def test_transformers_loads_it_strictly_and_computes_the_same(tmp_path, nothing, tied):
    checkpoint = random_ordered(GQA | {"tie_word_embeddings": tied})
    small = subset(checkpoint, shaped(checkpoint, layers=3, hidden=42, ffn=24))
    folder = saved(small, tmp_path / "a", nothing)
    model, facts = AutoModelForCausalLM.from_pretrained(folder, output_loading_info=True, dtype=torch.float32)
    assert not facts["unexpected_keys"]
    assert not facts["missing_keys"]
    assert not facts["mismatched_keys"]
    tokens = torch.randint(0, 70, (2, 16), generator=torch.Generator().manual_seed(99))
    with torch.no_grad():
        torch.testing.assert_close(model(input_ids=tokens).logits, logits(small), atol=1e-5, rtol=1e-5)


def test_tokenizer_and_its_like_come_along(tmp_path):
    ansnet = make_tiny_model(tmp_path / "ansnet", layers=1, hidden=24, ffn=8, heads=3)
    folder = saved(load_checkpoint(ansnet), tmp_path / "a", ansnet)
    present = [name for name in COMPANIONS if (ansnet / name).exists()]
    assert "tokenizer.json" in present
    assert all((folder / name).read_bytes() == (ansnet / name).read_bytes() for name in present)
    assert not (folder / "lineage.json").exists()


def test_odd_tensors_are_named():
    checkpoint = random_checkpoint(GQA)
    weights = dict(checkpoint.tensors)
    del weights["model.norm.weight"]
    weights["model.layers.9.surprise"] = torch.zeros(1)
    weights["model.layers.0.mlp.up_proj.bias"] = torch.zeros(41)
    with pytest.raises(BuildError) as caught:
        check_tensors(checkpoint.structure, weights)
    assert "missing: model.norm.weight" in caught.value.message
    assert "not in the architecture: model.layers.9.surprise" in caught.value.message
    assert "of another shape: model.layers.0.mlp.up_proj.bias" in caught.value.message


def test_a_long_list_of_odd_tensors_is_cut():
    checkpoint = random_checkpoint(GQA)
    with pytest.raises(BuildError) as caught:
        check_tensors(checkpoint.structure, {})
    assert caught.value.message.count("model.") == 4
    assert "…" in caught.value.message


def test_wrong_tensors_in_a_file_are_an_error_when_loading(tmp_path, nothing):
    checkpoint = random_checkpoint(GQA)
    lacking = {name: tensor for name, tensor in checkpoint.tensors.items() if name != "model.norm.weight"}
    folder = saved(replace(checkpoint, tensors=lacking), tmp_path / "a", nothing)
    with pytest.raises(BuildError, match=r"missing: model\.norm\.weight"):
        load_checkpoint(folder)


@pytest.mark.parametrize("keep", [0, 4, 400, 50_000])
def test_truncated_weights_are_an_error(tmp_path, nothing, keep):
    folder = saved(random_ordered(), tmp_path / "a", nothing)
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(BuildError, match=r"model\.safetensors cannot be read"):
        load_checkpoint(folder)


@pytest.mark.parametrize(
    ("files", "named"),
    [
        ({"config": None}, "config.json"),
        ({"config": b'{"model_type": "lla'}, "config.json"),
        ({"config": b"\xff\xfe"}, "config.json"),
        ({"config": b"[]"}, "config.json"),
        ({"model": None}, "model.safetensors"),
        ({"lineage": b"{}"}, "lineage.json"),
        ({"lineage": b"not JSON"}, "lineage.json"),
        ({"lineage": json.dumps({"layers": [0], "ranking": [0]}).encode()}, "lineage.json"),
        ({"residual": None}, "residual.safetensors"),
        ({"residual": b"short"}, "residual.safetensors"),
    ],
    ids=str,
)
def test_damaged_files_are_named(tmp_path, nothing, files, named):
    with pytest.raises(BuildError) as caught:
        load_checkpoint(damaged(tmp_path, nothing, **files))
    assert named in caught.value.message


def test_an_unordered_model_says_so():
    with pytest.raises(BuildError, match="never ordered"):
        _ = random_checkpoint(GQA).ordered
