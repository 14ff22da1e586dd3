"""Graphs in older operator sets of ONNX: the same numbers, nothing that the set does not have."""

from __future__ import annotations

from pathlib import Path

import onnx
import onnx_ir
import pytest

from colbuild.arch import ARCHITECTURES
from colbuild.errors import BuildError
from colbuild.export.graph.opset import in_opset
from colbuild.plan.shapes.package_size import package_bytes
from colbuild.spec.model.device import Device, Profile
from tests.export.helpers import export, files, manifest, saved
from tests.helpers.configs import random_config

POSITIONS = 32


def exported(name: str, folder: Path, **profile: object) -> Path:
    model, _ = saved(random_config(name, 5), folder / "model", seed=5)
    return export(model, folder / "package", context=POSITIONS, **profile)


@pytest.mark.parametrize("opset", [18, 21, 23])
@pytest.mark.parametrize("name", sorted(ARCHITECTURES))
def test_an_older_set_computes_what_pytorch_does(name: str, opset: int, tmp_path: Path):
    package = exported(name, tmp_path, opset=opset, operators="standard")
    told = manifest(package)
    assert told["graph"]["opsets"] == {"": opset}
    assert told["parity"]["max_difference"] < 1e-4
    model = onnx.load(package / told["graph"]["file"])
    onnx.checker.check_model(model, full_check=True)
    kinds = {node.op_type for node in model.graph.node}
    assert ("Attention" in kinds) == (opset >= 23)
    assert model.ir_version == {18: 8, 21: 10, 23: 11}[opset]


@pytest.mark.parametrize(
    "profile", [{"precision": "int8"}, {"precision": "fp16"}, {"precision": "int8", "operators": "standard"}]
)
def test_other_precisions_and_fixed_lengths_too(profile: dict[str, object], tmp_path: Path):
    package = exported("llama", tmp_path, opset=21, static={"sequence": 4}, **profile)
    told = manifest(package)
    assert told["graph"]["opsets"][""] == 21
    assert told["parity"]["relative_error"] < 0.1


def test_two_builds_in_an_older_set_give_the_same_bytes(tmp_path: Path):
    first, second = (exported("gemma3_text", tmp_path / name, opset=18) for name in ("a", "b"))
    assert files(first) == files(second)


@pytest.mark.parametrize("name", ["llama", "gemma3_text", "gpt_neox"])
def test_the_size_told_beforehand_holds(name: str, tmp_path: Path):
    model, checkpoint = saved(random_config(name, 5), tmp_path / "model", seed=5)
    package = export(model, tmp_path / "package", context=POSITIONS, opset=18)
    size = sum(len(data) for data in files(package).values())
    profile = Profile(name="any", precision="fp32", context=POSITIONS, opset=18)
    assert size <= package_bytes(checkpoint.structure, profile, 0)


def test_an_operator_without_an_older_form_is_refused():
    values = [
        onnx_ir.Value(name=name, type=onnx_ir.TensorType(kind), shape=onnx_ir.Shape(shape))
        for name, kind, shape in (
            ("past", onnx_ir.DataType.FLOAT, (1, 1, 8, 4)),
            ("update", onnx_ir.DataType.FLOAT, (1, 1, 2, 4)),
        )
    ]
    node = onnx_ir.node("TensorScatter", values)
    node.outputs[0].name = "present"
    graph = onnx_ir.Graph(values, node.outputs, nodes=[node], opset_imports={"": 24}, name="graph")
    with pytest.raises(
        BuildError, match="needs the operator TensorScatter, which ONNX's operator set 21 does not have"
    ):
        in_opset(onnx_ir.Model(graph, ir_version=11), 21)


def test_blocks_need_a_set_that_reads_them():
    with pytest.raises(
        ValueError, match="operator set 20 cannot read int8: its DequantizeLinear knows blocks from 21 on"
    ):
        Device(precision="int8", operators="standard", opset=20)
    with pytest.raises(ValueError, match="greater than or equal to 18"):
        Device(opset=17)
    assert Device(precision="int8", opset=18).opset == 18
