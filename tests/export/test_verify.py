"""`verify`: a package is what was built, and computes what it did."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from colbuild.errors import BuildError
from colbuild.export.package import verify
from colbuild.export.package.packed import pack
from colbuild.export.package.verify import verify_package


@pytest.fixture
def package(int8_package: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(int8_package, tmp_path / "package"))


def test_a_sound_package_is_sound(package: Path):
    found = verify_package(package)
    assert found.problems == found.remarks == ()
    assert found.tokens == len(found.manifest.sample.tokens) == 16
    assert found.size == sum(path.stat().st_size for path in package.rglob("*") if path.is_file())


def test_a_corrupt_file_is_named_and_a_corrupt_graph_is_not_run(package: Path):
    graph = package / "onnx/model_quantized.onnx"
    data = bytearray(graph.read_bytes())
    data[len(data) // 2] ^= 1
    graph.write_bytes(data)
    found = verify_package(package)
    assert found.problems == (f"{graph} has changed since the build: its sha256 differs from the manifest's",)
    assert found.tokens == 0


def test_a_foreign_file_is_named(package: Path):
    (package / "onnx/model.pkl").write_bytes(b"x")
    assert verify_package(package).problems == (
        f"{package / 'onnx/model.pkl'} does not belong to the package: the manifest does not list it",
    )


def test_another_generation_is_a_problem_and_a_close_call_is_not(package: Path, monkeypatch: pytest.MonkeyPatch):
    path = package / "manifest.json"
    told = json.loads(path.read_text(encoding="utf-8"))
    told["sample"]["tokens"][3] = (told["sample"]["tokens"][3] + 1) % 512
    path.write_text(json.dumps(told), encoding="utf-8")
    [problem] = verify_package(package).problems
    assert "generates other tokens: token 4 of the manifest's sample" in problem
    monkeypatch.setattr(verify, "CLEAR", 1e9)
    found = verify_package(package)
    assert found.problems == ()
    assert "near-ties" in found.remarks[0]


def test_paths_that_escape_and_links_are_refused(package: Path):
    path = package / "manifest.json"
    good = path.read_text(encoding="utf-8")
    told = json.loads(good)
    told["files"][0]["path"] = "../outside"
    path.write_text(json.dumps(told), encoding="utf-8")
    with pytest.raises(BuildError, match="lies outside the package"):
        verify_package(package)
    path.write_text(good, encoding="utf-8")
    (package / "link").symlink_to(path)
    with pytest.raises(BuildError, match="is a symbolic link"):
        verify_package(package)


def test_what_is_no_package_is_told(tmp_path: Path):
    with pytest.raises(BuildError, match="is not a package"):
        verify_package(tmp_path)


def test_a_packed_package_is_checked_like_its_folder(package: Path, tmp_path: Path):
    pytest.importorskip("zstandard")
    file = tmp_path / "phone.tar.zst"
    pack(package, file)
    found = verify_package(file)
    assert (found.package, found.problems, found.tokens) == (file, (), 16)
    (package / "extra").write_bytes(b"x")
    pack(package, file)
    assert verify_package(package).problems == (
        f"{package / 'extra'} does not belong to the package: the manifest does not list it",
    )
    assert verify_package(file).problems == (), "it stays behind"
