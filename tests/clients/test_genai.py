"""onnxruntime-genai runs a package's folder as it is."""

from __future__ import annotations

from pathlib import Path

import numpy
import pytest

from colbuild.arch import ARCHITECTURES
from tests.clients.conftest import FORMS, sample
from tests.export.helpers import export, saved
from tests.helpers.configs import random_config

genai = pytest.importorskip("onnxruntime_genai")


def generated(package: Path) -> list[int]:
    told = sample(package)
    model = genai.Model(str(package))
    settings = genai.GeneratorParams(model)
    settings.set_search_options(max_length=len(told["prompt"]) + len(told["tokens"]), do_sample=False)
    generator = genai.Generator(model, settings)
    generator.append_tokens(numpy.array([told["prompt"]], dtype=numpy.int32))
    found = []
    while not generator.is_done():
        generator.generate_next_token()
        found.append(int(generator.get_next_tokens()[0]))
    return found


@pytest.mark.parametrize("form", FORMS)
def test_it_generates_the_manifests_tokens(form: str, packages: Path):
    found = generated(packages / form)
    assert found
    assert found == sample(packages / form)["tokens"][: len(found)]


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_it_knows_every_architecture(name: str, tmp_path: Path):
    model, _ = saved(random_config(name, 0), tmp_path / "model")
    package = export(model, tmp_path / "package", context=32)
    found = generated(package)
    assert found
    assert found == sample(package)["tokens"][: len(found)]


def test_it_reads_the_tokenizer(packages: Path):
    tokenizer = genai.Tokenizer(genai.Model(str(packages / "int8")))
    assert tokenizer.decode(tokenizer.encode("Ada visits Zürich.")) == "Ada visits Zürich."
