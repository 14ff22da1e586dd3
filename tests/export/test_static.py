"""Packages whose lengths never change."""

from __future__ import annotations

from pathlib import Path

import pytest

from colbuild.arch import ARCHITECTURES
from colbuild.export.package.verify import verify_package
from colbuild.export.runtime.running import generate, open_package
from colbuild.spec.model.device import Device, Static
from tests.export.helpers import CONTEXT, export, graph_of, manifest, saved
from tests.helpers.configs import random_config


@pytest.mark.parametrize("operators", ["contrib", "standard"])
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_it_computes_what_pytorch_does(name: str, operators: str, tmp_path: Path):
    model, _ = saved(random_config(name, 0), tmp_path / "model")
    package = export(model, tmp_path / "package", operators=operators, context=32, static={"sequence": 5})
    told = manifest(package)
    assert told["parity"]["max_difference"] < 1e-3
    assert (told["graph"]["sequence"], told["graph"]["cache_length"]) == (5, 31)
    for value in (*graph_of(package).input, *graph_of(package).output):
        assert all(one.dim_value > 0 for one in value.type.tensor_type.shape.dim), value.name


@pytest.mark.parametrize("sequence", [1, 7, 64])
def test_it_answers_as_a_package_of_any_length_does(
    sequence: int, tiny_model: Path, fp32_package: Path, tmp_path: Path
):
    package = export(tiny_model, tmp_path / "package", static={"sequence": sequence})
    said = [
        "".join(generate(open_package(one), "Ada builds bridges", max_tokens=24)) for one in (package, fp32_package)
    ]
    assert said[0] == said[1]
    assert verify_package(package).problems == ()
    assert not (package / "genai_config.json").exists()


def test_a_text_may_fill_the_context(tiny_model: Path, tmp_path: Path):
    package = open_package(export(tiny_model, tmp_path / "package", static={"sequence": 8}, context=40))
    answer = generate(package, "Ada", max_tokens=1000, chat=False)
    list(answer)
    assert answer.prompt_tokens + answer.new_tokens == 40 or answer.stopped == "end"


def test_a_call_longer_than_the_context_is_refused():
    with pytest.raises(ValueError, match="a call of 257 tokens is longer than the context of 256"):
        Device(context=CONTEXT, static=Static(sequence=CONTEXT + 1))
