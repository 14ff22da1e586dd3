"""Packages from anywhere: what their graphs and texts may not do, told in words. `tests/fuzz/kinds` tries many more."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

import onnx
import pytest
from onnx import TensorProto

from colbuild import answer, bench_package, find_package, verify_package
from colbuild.errors import BuildError
from colbuild.export.graph.onnx_scan import data_files
from tests.helpers.toy_package import GRAPH, VOCAB, list_files, make_toy_package, read, toy_graph


@pytest.fixture
def package(tmp_path: Path) -> Path:
    return make_toy_package(tmp_path / "toy")


def refusal(package: Path) -> str:
    """The error that `verify` and `run` end with."""
    said = set()
    for command in (verify_package, lambda path: list(answer(path, "hello", max_tokens=2))):
        with pytest.raises(BuildError) as caught:
            command(package)
        said.add(caught.value.message)
    [message] = said
    return message


def write_graph(package: Path, model: onnx.ModelProto) -> None:
    (package / GRAPH).write_bytes(model.SerializeToString())
    list_files(package)


def external(location: str) -> onnx.ModelProto:
    model = toy_graph()
    table = model.graph.initializer[0]
    table.data_location = TensorProto.EXTERNAL
    table.external_data.add(key="location", value=location)
    return model


def test_a_sound_package_is_sound_and_answers(package: Path):
    found = verify_package(package)
    assert (found.problems, found.tokens) == ((), 4)
    generation = answer(package, "hello", max_tokens=3)
    assert len(list(generation)) <= 3
    assert (generation.new_tokens, generation.chat, generation.stopped) == (3, True, "max_tokens")
    [speed] = bench_package(package, [1], 8, 4)
    assert speed.decode_tps > 0
    assert speed.peak_memory > 0


@pytest.mark.parametrize("location", ["../../secret", "/dev/zero", "a/../../../secret", ""])
def test_a_graph_reads_no_file_outside_its_package(package: Path, location: str):
    (package.parent / "secret").write_bytes(bytes(VOCAB * 16))
    write_graph(package, external(location))
    assert f"reads '{location}', a file outside the package" in refusal(package)


def test_a_graph_reads_no_pipe(package: Path):
    os.mkfifo(package / "onnx/data")
    (package / GRAPH).write_bytes(external("data").SerializeToString())
    list_files(package)
    with pytest.raises(BuildError, match="which does not exist beside it"):
        list(answer(package, "hello", max_tokens=2))


def test_all_ways_to_a_tensor_are_followed(package: Path):
    model = toy_graph()
    tensor = TensorProto(name="x", data_location=TensorProto.EXTERNAL)
    names = iter(f"file{number}" for number in range(20))

    def told() -> TensorProto:
        named = TensorProto()
        named.CopyFrom(tensor)
        named.external_data.add(key="location", value=next(names))
        return named

    attribute = model.graph.node[0].attribute.add(name="a")
    attribute.t.CopyFrom(told())
    attribute.tensors.add().CopyFrom(told())
    attribute.sparse_tensor.values.CopyFrom(told())
    attribute.g.initializer.add().CopyFrom(told())
    attribute.graphs.add().node.add().attribute.add().sparse_tensors.add().indices.CopyFrom(told())
    model.functions.add().node.add().attribute.add().t.CopyFrom(told())
    model.functions.add().attribute_proto.add().t.CopyFrom(told())
    model.graph.sparse_initializer.add().values.CopyFrom(told())
    model.training_info.add().algorithm.initializer.add().CopyFrom(told())
    (package / GRAPH).write_bytes(model.SerializeToString())
    assert data_files(package / GRAPH) == {f"file{number}" for number in range(9)}


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"graph__layers": 10**9}, "has 4 inputs; the manifest says 2,000,000,002"),
        ({"graph__kv_heads": 2**50}, "the manifest says ['any', 1125899906842624, 'any', 4]"),
        ({"graph__cache_length": 2**40}, "the manifest says ['any', 1, 1099511627776, 4]"),
        ({"graph__cache": "float16"}, "as tensor(float); the manifest says tensor(float16)"),
        ({"graph__inputs": ["input_ids", "position_ids"]}, "has no input or output 'position_ids'"),
        ({"graph__past": ["{0}", "{layer:>99999999999}"]}, "has no input or output '{0}'"),
        ({"graph__outputs": ["present.0.key"]}, "gives no logits 'present.0.key'"),
        ({"sample__tokens": [0] * 5000}, "is damaged at 'sample.tokens'"),
    ],
)
def test_numbers_of_a_manifest_are_compared_with_the_graph(package: Path, changes: dict, told: str):
    list_files(package, **changes)
    assert told in refusal(package)


def test_token_ids_are_compared_with_the_graph(package: Path):
    list_files(package, sample__prompt=[VOCAB])
    with pytest.raises(BuildError, match="the text has the token id 256, and the package's graph has 256 tokens"):
        verify_package(package)


def test_logits_that_are_no_numbers_are_a_problem(package: Path):
    model = toy_graph()
    model.graph.initializer[1].raw_data = b"\xff" * len(model.graph.initializer[1].raw_data)
    write_graph(package, model)
    [problem] = verify_package(package).problems
    assert "generates other tokens: token 1" in problem


@pytest.mark.parametrize("name", ["config.json", "generation_config.json", "tokenizer_config.json"])
@pytest.mark.parametrize("content", [b"[" * 100_000, b"\xff", b'{"a": ' + b"9" * 5000 + b"}", b""])
def test_settings_of_any_kind_are_one_kind_of_error(package: Path, name: str, content: bytes):
    (package / name).write_bytes(content)
    list_files(package)
    with pytest.raises(BuildError, match=f"{name} cannot be read"):
        answer(package, "hello", max_tokens=2)


@pytest.mark.parametrize("value", ["1", [None], {"a": 1}, -1, 1.5, True])
def test_an_end_that_is_no_token_is_told(package: Path, value: object):
    import json

    (package / "generation_config.json").write_text(json.dumps({"eos_token_id": value}))
    list_files(package)
    with pytest.raises(BuildError, match="'eos_token_id' in its settings is not a token id"):
        answer(package, "hello", max_tokens=2)


def test_a_pipe_as_manifest_is_no_package(package: Path):
    told = read(package)
    (package / "manifest.json").unlink()
    os.mkfifo(package / "manifest.json")
    assert told["schema_version"] == 1
    for path in (package, package.parent):
        with pytest.raises(BuildError):
            find_package(path)


def test_names_too_long_for_a_header_are_told(package: Path):
    from colbuild import pack

    (package / ("x" * 200)).write_bytes(b"x")
    manifest = json.loads((package / "manifest.json").read_text("utf-8"))
    manifest["files"].append({"path": "x" * 200, "size": 1, "sha256": hashlib.sha256(b"x").hexdigest()})
    (package / "manifest.json").write_text(json.dumps(manifest), "utf-8")
    with pytest.raises(BuildError, match="cannot be packed: name is too long"):
        pack(package, package.parent / "toy.tar.zst")
    assert [path.name for path in package.parent.iterdir()] == ["toy"]
