"""Streamed subsets and mixtures are, bit for bit, those made in memory; damaged files are named."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from dataclasses import asdict, replace

import pytest
import torch
from safetensors.torch import load_file, save_file

from colbuild.arch import ARCHITECTURES
from colbuild.errors import BuildError
from colbuild.progress import silent
from colbuild.weights.files.checkpoint import load_checkpoint, save_checkpoint
from colbuild.weights.mixing import streaming as stream
from colbuild.weights.mixing.interpolation import mix, neighbours
from colbuild.weights.mixing.mixture import EXPAND, SUBSET, Mix, even
from colbuild.weights.mixing.streaming import stream_mix, stream_subset
from colbuild.weights.prefix.subset import subset
from tests.weights.helpers import config_of, random_ordered, retrained, smaller_shape

NAMES = list(ARCHITECTURES)
MIXES = [
    SUBSET,
    EXPAND,
    Mix(0.25, 0.5, 0.75, 0.5, 0.25),
    Mix(0.5, 0.0, 0.25, 1.0, 0.0),
    even(0.25, "zero"),
    even(0.5, "copy"),
    Mix(0.25, 0.0, 0.0, 0.0, 0.0, layers=(0.0, 0.5, 1.0)),
]


@pytest.fixture
def folders(tmp_path):
    def make(name, dtype=torch.float32):
        larger = random_ordered(config_of(name), dtype=dtype)
        smaller = subset(retrained(larger, 1), smaller_shape(larger, layers=2, ffn=16))
        for checkpoint, folder in ((larger, "larger"), (smaller, "smaller")):
            (tmp_path / folder).mkdir()
            save_checkpoint(checkpoint, tmp_path / folder, tmp_path)
        (tmp_path / "made").mkdir()
        (tmp_path / "expected").mkdir()
        return larger, smaller, tmp_path

    return make


def _same(one, other):
    files = sorted(path.name for path in other.iterdir())
    assert sorted(path.name for path in one.iterdir()) == files
    for name in files:
        assert (one / name).read_bytes() == (other / name).read_bytes(), name


@pytest.mark.parametrize("chunk", [64, stream.CHUNK])
@pytest.mark.parametrize("name", NAMES)
def test_a_streamed_subset_is_the_one_made_in_memory(name, chunk, folders, monkeypatch):
    monkeypatch.setattr(stream, "CHUNK", chunk)
    larger, _, folder = folders(name)
    lengths = {"layers": 3, "ffn": 24, "kv_heads": 3 if ARCHITECTURES[name].ties_widths else 1}
    shape = smaller_shape(larger, **lengths)
    save_checkpoint(subset(larger, shape), folder / "expected", folder)
    stream_subset(folder / "larger", shape, folder / "made", silent)
    _same(folder / "made", folder / "expected")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("how", MIXES)
@pytest.mark.parametrize("name", NAMES)
def test_a_streamed_mixture_is_the_one_made_in_memory(name, how, dtype, folders, monkeypatch):
    monkeypatch.setattr(stream, "CHUNK", 500)
    larger, smaller, folder = folders(name, dtype)
    shape = smaller_shape(larger, layers=3, ffn=24)
    pair = neighbours(larger, smaller, shape)
    save_checkpoint(replace(pair.base, tensors=mix(pair, how)), folder / "expected", folder)
    stream_mix(folder / "larger", folder / "smaller", shape, how, folder / "made", silent)
    _same(folder / "made", folder / "expected")


def test_streaming_imports_no_torch(folders):
    """Its import takes longer than a model of a billion parameters."""
    larger, _, folder = folders("llama")
    shape = smaller_shape(larger, layers=3, ffn=24)
    code = (
        "import sys; from pathlib import Path; from colbuild.arch import Shape; from colbuild.progress import silent\n"
        "import colbuild.ops.interpolate; from colbuild.weights.mixing.mixture import even\n"
        "from colbuild.weights.mixing.streaming import stream_mix, stream_subset\n"
        f"folder, shape = Path({str(folder)!r}), Shape(**{asdict(shape)!r})\n"
        "stream_subset(folder / 'larger', shape, folder / 'made', silent)\n"
        "stream_mix(folder / 'larger', folder / 'smaller', shape, even(0.5), folder / 'expected', silent)\n"
        "assert not {'torch', 'transformers'} & sys.modules.keys()"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    assert (folder / "expected" / "model.safetensors").stat().st_size > 10_000


def test_sharded_models_go_in_and_out(folders):
    larger, _, folder = folders("llama")
    shape = smaller_shape(larger, layers=3, ffn=24)
    stream_mix(folder / "larger", folder / "smaller", shape, MIXES[2], folder / "expected", silent)
    stream_subset(folder / "larger", larger.structure.shape, folder / "made", silent, shard=8000)
    assert len(list((folder / "made").glob("*.safetensors"))) > 3
    (folder / "again").mkdir()
    stream_mix(folder / "made", folder / "smaller", shape, MIXES[2], folder / "again", silent)
    _same(folder / "again", folder / "expected")
    found = load_checkpoint(folder / "made")
    assert all(torch.equal(found.tensors[name], larger.tensors[name]) for name in larger.tensors)


def test_a_weight_that_is_no_number_is_named(folders):
    larger, _, folder = folders("llama")
    weights = {name: tensor.clone() for name, tensor in larger.tensors.items()}
    weights["model.layers.1.mlp.up_proj.weight"][0, 0] = float("nan")
    save_file(weights, folder / "larger" / "model.safetensors", metadata={"format": "pt"})
    named = rf"model\.layers\.1\.mlp.up_proj.weight in {folder / 'larger'}\S* contains NaN or infinite weights"
    with pytest.raises(BuildError, match=named):
        stream_subset(folder / "larger", larger.structure.shape, folder / "made", silent)
    assert list((folder / "made").iterdir()) == []


@pytest.mark.parametrize("left", [4, 60, 5000])
def test_a_truncated_file_is_refused_before_anything_is_written(left, folders):
    larger, _, folder = folders("llama")
    path = folder / "larger" / "model.safetensors"
    path.write_bytes(path.read_bytes()[:left])
    with pytest.raises(BuildError, match=r"truncated|damaged header"):
        stream_subset(folder / "larger", larger.structure.shape, folder / "made", silent)
    assert list((folder / "made").iterdir()) == []


def test_missing_and_extra_tensors_are_named(folders):
    larger, _, folder = folders("llama")
    weights = dict(larger.tensors)
    weights["stray"] = weights.pop("model.norm.weight")
    save_file(weights, folder / "larger" / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(BuildError, match=r"missing: model.norm.weight; not in the architecture: stray"):
        stream_subset(folder / "larger", larger.structure.shape, folder / "made", silent)


def test_a_streamed_desnet_keeps_the_layers_of_an_anchor_that_chose_its_own(folders):
    larger, smaller, folder = folders("llama")
    lowest = tuple(sorted(larger.ordered.ranking[-2:]))
    chosen = replace(smaller, lineage=replace(smaller.ordered, layers=lowest))
    (folder / "chosen").mkdir()
    save_checkpoint(chosen, folder / "chosen", folder)
    shape = smaller_shape(larger, layers=3, ffn=24)
    pair = neighbours(larger, chosen, shape)
    save_checkpoint(replace(pair.base, tensors=mix(pair, MIXES[2])), folder / "expected", folder)
    stream_mix(folder / "larger", folder / "chosen", shape, MIXES[2], folder / "made", silent)
    _same(folder / "made", folder / "expected")


def test_anchors_of_two_orders_cannot_be_streamed(folders):
    larger, _, folder = folders("llama")
    (folder / "stranger").mkdir()
    save_checkpoint(random_ordered(config_of("llama"), seed=7), folder / "stranger", folder)
    with pytest.raises(BuildError, match="rank layers in different orders"):
        stream_mix(folder / "larger", folder / "stranger", larger.structure.shape, SUBSET, folder / "made", silent)


def test_anchors_of_two_architectures_need_a_bridge(folders, tmp_path):
    larger, _, folder = folders("llama")
    other = random_ordered(config_of("mistral"))
    (folder / "mistral").mkdir()
    save_checkpoint(other, folder / "mistral", folder)
    with pytest.raises(BuildError, match=r"llama \(.*\) and mistral") as found:
        stream_mix(folder / "larger", folder / "mistral", larger.structure.shape, SUBSET, folder / "made", silent)
    assert "bridge" in str(found.value.hint)
    assert list((folder / "made").iterdir()) == []


def test_a_header_that_lies_about_sizes_is_refused(folders):
    larger, _, folder = folders("llama")
    path = folder / "larger" / "model.safetensors"
    data = path.read_bytes()
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    name = next(key for key in header if key != "__metadata__")
    header[name]["shape"][0] += 1
    text = json.dumps(header).encode().ljust(length)
    path.write_bytes(len(text).to_bytes(8, "little") + text + data[8 + length :])
    with pytest.raises(BuildError, match="damaged header"):
        stream_subset(folder / "larger", larger.structure.shape, folder / "made", silent)


def _rewritten(folder, changes):
    """Replaces some weights of a model folder."""
    path = folder / "model.safetensors"
    save_file({**load_file(path), **changes}, path.with_name("new"), metadata={"format": "pt"})
    path.with_name("new").rename(path)


@pytest.mark.parametrize("value", [float("inf"), -float("inf")])
@pytest.mark.parametrize("where", ["model.embed_tokens.weight", "model.layers.1.mlp.down_proj.weight"])
def test_an_infinite_weight_of_the_smaller_anchor_is_named(where, value, folders):
    larger, smaller, folder = folders("llama")
    shape = smaller_shape(larger, layers=3, ffn=24)
    weight = smaller.tensors[where].clone()
    weight[-1, -1] = value
    _rewritten(folder / "smaller", {where: weight})
    named = f"^{re.escape(where)} in {folder / 'smaller'}\\S* contains NaN or infinite weights"
    with pytest.raises(BuildError, match=named):
        stream_mix(folder / "larger", folder / "smaller", shape, MIXES[2], folder / "made", silent, shard=8000)
    assert list((folder / "made").iterdir()) == []


def test_a_mixture_that_its_type_cannot_hold_is_not_blamed_on_an_anchor(folders):
    larger, _, folder = folders("llama", torch.float16)
    # Cutting residual channels off makes a norm's weight larger.
    most = torch.full_like(larger.tensors["model.norm.weight"], 65504.0)
    _rewritten(folder / "larger", {"model.norm.weight": most})
    shape = replace(larger.structure.shape, hidden=larger.structure.shape.hidden // 2)
    with pytest.raises(BuildError, match=r"^model\.norm\.weight overflows in float16"):
        stream_subset(folder / "larger", shape, folder / "made", silent)


def test_a_tensor_of_two_types_is_named(folders):
    larger, smaller, folder = folders("llama")
    _rewritten(folder / "smaller", {"model.norm.weight": smaller.tensors["model.norm.weight"].bfloat16()})
    shape = smaller_shape(larger, layers=3, ffn=24)
    with pytest.raises(BuildError, match=r"^model\.norm\.weight is float32 in the larger anchor and bfloat16 in"):
        stream_mix(folder / "larger", folder / "smaller", shape, MIXES[2], folder / "made", silent)
    assert list((folder / "made").iterdir()) == []


@pytest.mark.parametrize("which", ["larger", "smaller"])
def test_weights_of_other_shapes_than_the_configuration_says_are_named(which, folders):
    larger, _, folder = folders("llama")
    path = folder / which / "config.json"
    config = json.loads(path.read_text())
    path.write_text(json.dumps({**config, "intermediate_size": config["intermediate_size"] - 1}))
    shape = smaller_shape(larger, layers=3, ffn=24)
    with pytest.raises(BuildError, match=r"of another shape: model\.layers\.0\.mlp\.down_proj\.weight"):
        stream_mix(folder / "larger", folder / "smaller", shape, MIXES[2], folder / "made", silent)
    assert list((folder / "made").iterdir()) == []
