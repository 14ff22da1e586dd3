"""`verify`, `pack` and `bench` on a package, as a user calls them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from colbuild.errors import EXIT_FAILED
from tests.export.helpers import export, manifest
from tests.helpers.tiny import make_tiny_model


@pytest.fixture(scope="module")
def package(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("out")
    return export(make_tiny_model(folder / "model"), folder / "phone-int8", precision="int8")


def test_a_sound_package(package, colbuild):
    ran = colbuild("verify", str(package))
    assert ran.code == 0, ran.err
    said = " ".join(ran.out.split())
    assert "is sound: 7 files" in said
    assert "16 of 16 sample tokens the same." in said
    told = json.loads(colbuild("verify", str(package), "--json").out)
    assert (told["format"], told["sound"], told["problems"]) == ("colbuild.verify.v1", True, [])


def test_a_package_as_one_file(package, colbuild):
    ran = colbuild("pack", str(package))
    assert ran.code == 0, ran.err
    file = package.with_name("phone-int8.tar.zst")
    assert file.is_file()
    assert colbuild("verify", str(file)).code == 0


def test_a_package_that_is_not_sound(package, colbuild):
    (package / "foreign.bin").write_bytes(b"x")
    try:
        ran = colbuild("verify", str(package))
    finally:
        (package / "foreign.bin").unlink()
    assert ran.code == EXIT_FAILED
    assert ran.err.startswith(f"error: {package / 'foreign.bin'} does not belong to the package")
    assert ran.err.splitlines()[-1].startswith("hint: copy or build the package again")
    assert "is sound" not in ran.out


def test_figures_go_beside_the_package_and_not_into_it(package, colbuild):
    ran = colbuild("bench", str(package), "--threads", "1", "--prompt-tokens", "32", "--new-tokens", "4")
    assert ran.code == 0, ran.err
    assert "decode tokens/s" in ran.out
    [row] = json.loads(package.with_name("phone-int8.bench.json").read_text(encoding="utf-8"))["rows"]
    assert (row["threads"], row["prompt_tokens"], row["new_tokens"]) == (1, 32, 4)
    assert row["decode_tps"] > 0
    assert row["peak_memory"] > 0
    assert colbuild("verify", str(package)).code == 0


def test_what_is_no_package_is_told(tmp_path, colbuild):
    for command in ("verify", "bench", "pack"):
        ran = colbuild(command, str(tmp_path))
        assert ran.code == EXIT_FAILED
        assert "is not a package: it has no manifest.json" in ran.err
        assert "Traceback" not in ran.err


@pytest.mark.parametrize("command", ["verify", "run", "bench", "pack"])
def test_a_folder_that_holds_one_package_is_enough(package, colbuild, tmp_path, command):
    desnet = tmp_path / "family" / "phone"
    shutil.copytree(package, desnet / "int8")
    shutil.copytree(package.parent / "model", desnet / "checkpoint")
    shutil.copytree(package, desnet / "int8.kept-0123")
    more = {"run": ("--prompt", "Ada", "--max-tokens", "1"), "bench": ("-t", "1", "--prompt-tokens", "4")}
    for given in (desnet, tmp_path / "family"):
        ran = colbuild(command, str(given), *more.get(command, ()))
        assert ran.code == 0, ran.err
        assert f"Using {desnet / 'int8'}." in ran.err.replace("\n", "")
    # What comes of it lies beside the package.
    beside = {"bench": "int8.bench.json", "pack": "int8.tar.zst"}.get(command)
    assert beside is None or (desnet / beside).is_file()


def test_several_packages_are_listed(package, colbuild, tmp_path):
    names = ("phone/int8", "phone/int4", "watch/int4")
    for name in names:
        (tmp_path / name).mkdir(parents=True)
        shutil.copyfile(package / "manifest.json", tmp_path / name / "manifest.json")
    # A browser's add-on has a file of that name too.
    (tmp_path / "addon").mkdir()
    (tmp_path / "addon" / "manifest.json").write_text("{}")
    for command in ("verify", "bench", "pack"):
        ran = colbuild(command, str(tmp_path))
        assert ran.code == EXIT_FAILED
        assert "holds 3 packages" in ran.err
        told = ran.err.replace("\n", "").replace(" ", "")
        assert all(f"{tmp_path / name}" in told for name in names)
    ran = colbuild("run", str(tmp_path / "phone" / "absent"), "--prompt", "x")
    assert "is not a folder" in ran.err
    assert "phone/int4" in ran.err.replace("\n", "")


def test_a_models_folder_is_told_apart_from_a_package(package, colbuild, tmp_path):
    model = package.parent / "model"
    alone = Path(shutil.copytree(model, tmp_path / "alone" / "model"))
    for command, more in (("run", ("--prompt", "x")), ("verify", ()), ("pack", ())):
        ran = colbuild(command, str(alone), *more)
        assert ran.code == EXIT_FAILED
        assert "is a model's folder for transformers (llama), not a package" in " ".join(ran.err.split())
        assert "'exports'" in ran.err
    shutil.copytree(model, tmp_path / "anchor" / "checkpoint")
    told = colbuild("run", str(tmp_path / "anchor"), "--prompt", "x").err
    assert "holds a model's folder for transformers (llama), and no package" in " ".join(told.split())
    shutil.copytree(package, tmp_path / "phone" / "int8")
    shutil.copytree(model, tmp_path / "phone" / "checkpoint")
    ran = colbuild("run", str(tmp_path / "phone" / "checkpoint"), "--prompt", "x")
    assert "give a package:" in ran.err
    assert str(tmp_path / "phone" / "int8") in ran.err.replace("\n", "")
    (tmp_path / "weights").mkdir()
    (tmp_path / "weights" / "x.gguf").write_bytes(b"GGUF")
    assert "a folder of weights (x.gguf)" in " ".join(
        colbuild("run", str(tmp_path / "weights"), "--prompt", "x").err.split()
    )


def test_a_tokenizer_without_a_chat_template(colbuild, tmp_path):
    model = make_tiny_model(tmp_path / "model", layers=2)
    path = model / "tokenizer_config.json"
    settings = json.loads(path.read_text(encoding="utf-8"))
    del settings["chat_template"]
    path.write_text(json.dumps(settings), encoding="utf-8")
    plain = export(model, tmp_path / "package")
    assert manifest(plain)["model"]["chat"] is False
    ran = colbuild("run", str(plain), "--prompt", "Ada builds", "--max-tokens", "3")
    assert ran.code == 0
    assert "has no chat template: the prompt is continued as text, as with --raw" in " ".join(ran.err.split())
    asked = colbuild("run", str(plain), "--prompt", "Ada builds", "--max-tokens", "3", "--raw")
    assert asked.out == ran.out
    assert "chat template" not in asked.err


def test_a_prompt_that_is_no_text(package, colbuild):
    ran = colbuild("run", str(package), "--raw", "--prompt", "Ada \udc9b")
    assert ran.code == EXIT_FAILED
    assert ran.err.startswith("error: the prompt is not UTF-8 text")
