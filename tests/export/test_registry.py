"""Packages in an OCI registry: what is sent, that it comes back the same, and what is refused."""

from __future__ import annotations

import builtins
import hashlib
import json
import shutil
from pathlib import Path

import pytest

from colbuild.errors import EXIT_FAILED, BuildError
from colbuild.export.package.registry import KIND, push_package
from colbuild.export.package.verify import verify_package
from colbuild.progress import Progress, silent
from tests.export.helpers import files
from tests.export.registries import Registry


@pytest.fixture(autouse=True)
def _nobody_is_logged_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))


def test_a_package_comes_back_as_it_was(int8_package: Path, tmp_path: Path) -> None:
    registry, seen = Registry(), list[Progress]()
    with registry.serve() as host:
        pushed = push_package(int8_package, f"{host}/acme/phone:1.0", seen.append)
    told = registry.manifest("1.0")
    assert pushed.digest == f"sha256:{hashlib.sha256(registry.manifests['1.0']).hexdigest()}"
    assert told["artifactType"] == KIND
    back = tmp_path / "back"
    for layer in told["layers"]:
        path = back / layer["annotations"]["org.opencontainers.image.title"]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(registry.blobs[layer["digest"]])
        assert path.stat().st_size == layer["size"]
    assert files(back) == files(int8_package)
    assert verify_package(back).problems == ()
    assert pushed.files == len(told["layers"]) == len(files(int8_package))
    assert seen[-1].done < seen[-1].total == pushed.size


def test_what_was_pushed_can_be_pulled(int8_package: Path, tmp_path: Path) -> None:
    from oras.client import OrasClient

    registry = Registry()
    with registry.serve() as host:
        push_package(int8_package, f"{host}/acme/phone:1.0", silent)
        OrasClient(insecure=True).pull(f"{host}/acme/phone:1.0", outdir=str(tmp_path / "back"))
    assert files(tmp_path / "back") == files(int8_package)


def test_pushing_again_sends_nothing_and_gives_the_same_digest(int8_package: Path) -> None:
    registry = Registry()
    with registry.serve() as host:
        first = push_package(int8_package, f"{host}/acme/phone:1.0", silent)
        sent = len(registry.sent)
        again = push_package(int8_package, f"{host}/acme/phone:2.0", silent)
    assert first.digest == again.digest
    assert sent == len(registry.sent) == first.files + 1


def test_a_damaged_package_does_not_leave(int8_package: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(int8_package, tmp_path / "copy"))
    graph = copy / "onnx/model_quantized.onnx"
    data = bytearray(graph.read_bytes())
    data[-1] ^= 1
    graph.write_bytes(data)
    registry = Registry()
    with (
        registry.serve() as host,
        pytest.raises(BuildError, match=r"model_quantized\.onnx has changed since the build"),
    ):
        push_package(copy, f"{host}/phone:1.0", silent)
    assert registry.blobs == {}


@pytest.mark.parametrize(
    "reference", ["phone", "phone:1.0", "", "host.example/", "http://host/phone", "ghcr.io/a/b@sha256:" + "0" * 64]
)
def test_what_is_no_place_in_a_registry(reference: str, int8_package: Path) -> None:
    with pytest.raises(BuildError, match="not a reference to a registry") as failed:
        push_package(int8_package, reference, silent)
    assert failed.value.hint == "write host/name:tag, as in ghcr.io/acme/phone:1.0"


def test_a_registry_that_refuses_says_why(int8_package: Path) -> None:
    registry = Registry(refusal=(405, "this mirror is read-only"))
    with registry.serve() as host, pytest.raises(BuildError, match=r"read-only|cannot be written to") as failed:
        push_package(int8_package, f"{host}/phone:1.0", silent)
    assert "log in with" in str(failed.value.hint)


def test_no_registry_there(int8_package: Path) -> None:
    with pytest.raises(BuildError, match=r"the registry of 127\.0\.0\.1:9/phone:1\.0 cannot be written to"):
        push_package(int8_package, "127.0.0.1:9/phone:1.0", silent)


def test_without_the_library(int8_package: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    load = builtins.__import__

    def missing(name: str, *rest: object, **more: object) -> object:
        if name.startswith("oras"):
            raise ImportError(name)
        return load(name, *rest, **more)

    monkeypatch.setattr(builtins, "__import__", missing)
    with pytest.raises(BuildError, match="pushing to a registry needs oras") as failed:
        push_package(int8_package, "localhost/phone:1.0", silent)
    assert "colbuild[oci]" in str(failed.value.hint)


def test_the_command(int8_package: Path, colbuild) -> None:
    registry = Registry()
    with registry.serve() as host:
        ran = colbuild("push", str(int8_package), f"{host}/acme/phone:1.0")
        assert ran.code == 0, ran.err
        assert "sha256:" in ran.out
        told = json.loads(colbuild("push", str(int8_package), f"{host}/acme/phone:1.0", "--json").out)
        assert (told["format"], told["reference"]) == ("colbuild.push.v1", f"{host}/acme/phone:1.0")
        assert colbuild("push", str(int8_package), "phone").code == EXIT_FAILED
