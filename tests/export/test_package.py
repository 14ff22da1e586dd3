"""What lies in a package, and which exports fail."""

from __future__ import annotations

import hashlib
import json
import math
import os
import subprocess
import sys
from pathlib import Path

import onnx
import pytest
import torch
from tokenizers import Tokenizer
from transformers import LlamaForCausalLM

from colbuild.export.graph import onnx_file
from colbuild.export.graph.decoder import decoder_graph
from colbuild.export.graph.graph_nodes import fill_float
from colbuild.export.manifest import check_files, read_manifest
from colbuild.export.package import companions
from colbuild.export.runtime.running import generate, open_package
from colbuild.progress import Progress
from colbuild.weights.files.checkpoint import load_checkpoint
from tests.export.helpers import CONTEXT, VERSIONS, build, export, failure, files, graph_of, manifest, save_llama
from tests.helpers.configs import random_llama_config
from tests.helpers.profiles import INT8
from tests.helpers.tiny import make_tiny_model


def test_package_holds_what_consumers_look_for(fp32_package: Path, int8_package: Path, tiny_model: Path):
    common = {"config.json", "generation_config.json", "manifest.json", "tokenizer.json", "tokenizer_config.json"}
    common |= {"genai_config.json", "README.md"}
    assert set(files(fp32_package)) == common | {"onnx/model.onnx"}
    assert set(files(int8_package)) == common | {"onnx/model_quantized.onnx"}
    packed, whole = (json.loads((one / "tokenizer.json").read_bytes()) for one in (int8_package, tiny_model))
    assert packed == whole


def test_manifest_lists_every_other_file_with_its_digest(int8_package: Path):
    listed = {file["path"]: (file["size"], file["sha256"]) for file in manifest(int8_package)["files"]}
    found = {name: (len(data), hashlib.sha256(data).hexdigest()) for name, data in files(int8_package).items()}
    del found["manifest.json"]
    assert listed == found


def test_manifest_tells_model_profile_versions_and_sample(int8_package: Path, tiny_model: Path):
    told = manifest(int8_package)
    assert told["model"]["sha256"] == hashlib.sha256((tiny_model / "model.safetensors").read_bytes()).hexdigest()
    assert told["model"]["parameters"] == LlamaForCausalLM.from_pretrained(tiny_model).num_parameters()
    assert told["model"]["shape"]["layers"] == told["graph"]["layers"] == 6
    assert told["profile"] == INT8 | {"context": CONTEXT}
    assert told["versions"] == VERSIONS
    assert len(told["sample"]["tokens"]) == 16


def test_graph_has_the_names_that_the_manifest_gives(fp32_package: Path):
    graph, told = graph_of(fp32_package), read_manifest(fp32_package).graph
    assert [value.name for value in graph.input] == [*told.inputs, *told.names(told.past)]
    assert [value.name for value in graph.output] == [*told.outputs, *told.names(told.present)]


def test_two_exports_give_the_same_bytes(int8_package: Path, fp32_package: Path, tiny_model: Path, tmp_path: Path):
    # In another process with another hash order, so that sets and dictionaries of the libraries show.
    code = (
        "import sys; from pathlib import Path; from tests.export.helpers import export\n"
        "for precision in ('fp32', 'int8'): export(Path(sys.argv[1]), Path(sys.argv[2]) / precision, precision=precision)"
    )
    environment = os.environ | {"PYTHONHASHSEED": "4711", "OMP_NUM_THREADS": "2"}
    subprocess.run([sys.executable, "-c", code, tiny_model, tmp_path], check=True, env=environment)
    assert files(tmp_path / "fp32") == files(fp32_package)
    assert files(tmp_path / "int8") == files(int8_package)


def test_nothing_in_a_package_names_this_machine(fp32_package: Path, tiny_model: Path):
    for name, data in files(fp32_package).items():
        assert str(tiny_model).encode() not in data, name
        assert b"site-packages" not in data, name


@pytest.mark.parametrize("package", ["fp32_package", "int8_package"])
def test_tied_embedding_is_stored_once(package: str, request: pytest.FixtureRequest):
    graph = graph_of(request.getfixturevalue(package))
    # Byte or float: only the embedding has as many elements, and it is a row for each of the 512 tokens.
    large = [tensor for tensor in graph.initializer if math.prod(tensor.dims) == 512 * 96]
    assert [512 in tensor.dims for tensor in large] == [True]


def test_int8_takes_a_byte_and_an_eighth_for_each_parameter(int8_package: Path):
    told = manifest(int8_package)
    weights = sum(len(tensor.raw_data) for tensor in graph_of(int8_package).initializer)
    # Norms, rotary tables and the like are the rest.
    assert weights < 1.125 * told["model"]["parameters"] + 50_000


def test_untied_head_and_bfloat16_weights_are_exported(tmp_path: Path):
    model = make_tiny_model(tmp_path / "model", layers=2, tied=False, dtype=torch.bfloat16)
    for precision in ("fp32", "int8"):
        package = export(model, tmp_path / precision, precision=precision)
        assert manifest(package)["model"]["tied"] is False
        assert "".join(generate(open_package(package), "Ada", max_tokens=3))


@pytest.mark.parametrize("seed", range(6))
def test_any_grouping_head_width_and_biases_keep_parity(seed: int, tmp_path: Path):
    model = save_llama(tmp_path / "model", random_llama_config(seed))
    exact = manifest(export(model, tmp_path / "fp32"))
    assert exact["parity"]["max_difference"] < 1e-4
    # Blocks of 64 do not divide these widths: the last one is padded.
    rough = manifest(export(model, tmp_path / "int8", precision="int8", block=64))
    assert 1e-4 < rough["parity"]["relative_error"] < 0.1


def test_weights_too_large_for_one_file_go_beside_it(tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    for number, largest in enumerate((2_000_000, 500_000)):
        monkeypatch.setattr(onnx_file, "LARGEST_FILE", largest)
        package = export(tiny_model, tmp_path / f"package{number}")
        check_files(package, read_manifest(package))
        assert (package / "onnx/model.onnx").stat().st_size < 500_000
        beside = {name: len(data) for name, data in files(package).items() if "_data" in name}
        assert "onnx/model.onnx_data" in beside
        assert max(beside.values()) <= largest
        told = json.loads((package / "config.json").read_text(encoding="utf-8"))["transformers.js_config"]
        assert told == {"use_external_data_format": {"model.onnx": len(beside)}}
    assert {"onnx/model.onnx_data", "onnx/model.onnx_data_1", "onnx/model.onnx_data_2"} <= set(beside)


def test_broken_size_limit_fails_and_says_by_how_much(tiny_model: Path, int8_package: Path, tmp_path: Path):
    size = sum(len(data) for data in files(int8_package).values())
    error = failure(tiny_model, tmp_path / "a", precision="int8", limits={"max_package": 400_000})
    assert "400 kB" in error.message
    assert "more than its limit max_package" in error.message
    assert error.hint is not None and "given max_package: 400kB instead of params or shape" in error.hint
    # The manifest repeats the limit, hence a few bytes more than the package without one.
    export(tiny_model, tmp_path / "b", precision="int8", limits={"max_package": size + 10})


def test_context_beyond_the_positions_fails_and_names_the_largest(tiny_model: Path, tmp_path: Path):
    error = failure(tiny_model, tmp_path / "a", context=513)
    assert "513" in error.message
    assert error.hint == "the largest possible is context: 512"
    assert export(tiny_model, tmp_path / "b", context=512)


def test_config_allows_no_more_positions_than_the_package_has(fp32_package: Path):
    graph = {tensor.name: tensor for tensor in graph_of(fp32_package).initializer}
    tables = [tensor for name, tensor in graph.items() if name.endswith(("cos_cache", "sin_cache"))]
    assert [tensor.dims[0] for tensor in tables] == [CONTEXT, CONTEXT]


def test_tiny_context_can_be_exported(tiny_model: Path, tmp_path: Path):
    package = export(tiny_model, tmp_path / "package", context=4)
    assert len(manifest(package)["sample"]["tokens"]) == 3


def test_progress_names_its_phases(tiny_model: Path, tmp_path: Path):
    report: list[Progress] = []
    export(tiny_model, tmp_path / "package", precision="int8", report=report)
    assert list(dict.fromkeys(progress.phase for progress in report)) == [
        "building the graph",
        "quantising",
        "comparing",
    ]
    assert report[-1].done == report[-1].total > 0


def test_onnx_checker_accepts_the_graph(fp32_package: Path):
    onnx.checker.check_model(fp32_package / "onnx/model.onnx")


def test_graph_lets_go_of_its_weights_once_written(tiny_model: Path, tmp_path: Path):
    checkpoint = load_checkpoint(tiny_model)
    decoder = decoder_graph(checkpoint.config, checkpoint.tensors, CONTEXT)
    fill_float(decoder.model, decoder.weights)
    values = list(decoder.model.graph.initializers.values())
    onnx_file.write_onnx(decoder.model, tmp_path / "model.onnx")
    assert values
    assert all(value.const_value is None for value in values)


def test_a_tokenizer_is_written_without_spaces(tmp_path: Path):
    model = make_tiny_model(tmp_path / "model")
    whole = json.loads((model / "tokenizer.json").read_text(encoding="utf-8"))
    (model / "tokenizer.json").write_text(json.dumps(whole, indent=4), encoding="utf-8")
    short = build(model, tmp_path / "package") / "tokenizer.json"
    assert json.loads(short.read_text(encoding="utf-8")) == whole
    assert short.stat().st_size < 0.7 * (model / "tokenizer.json").stat().st_size
    assert Tokenizer.from_file(str(short)).encode("Ada visits Zürich.").ids


def test_a_tokenizer_that_utf_8_cannot_hold_stays_as_it_is(tmp_path: Path):
    path = tmp_path / "tokenizer.json"
    path.write_text('{"half": "\\ud800",  "a": 1}', encoding="ascii")
    before = path.read_bytes()
    companions._shorten(path)
    assert path.read_bytes() == before
