"""Mistakes about sources: told at the place in the spec, and each kind with one exit code."""

from __future__ import annotations

from dataclasses import replace

import pytest
from safetensors.torch import load_file, save_file

from colbuild.errors import EXIT_SOURCE_UNAVAILABLE, EXIT_SPEC_ERROR
from colbuild.plan.lock.lock_file import Lock, read_lock, write_lock
from tests.helpers.project import replace_in

SPEC = "specs/tiny.yaml"
ANSNET = "source: ./.tiny/ansnet"
TRAIN = "train: {source: ./.tiny/corpus.txt"
COMMANDS = ("plan", "lock", "build")
NO_SHA = "0" * 64

UNAVAILABLE = {
    "the AnsNet's folder": (ANSNET, "source: ./.tiny/absent", "9:11: ./.tiny/absent does not exist"),
    "the AnsNet's package": (
        ANSNET,
        "source: pkg://no_such/x.gguf",
        "9:11: pkg://no_such/x.gguf: no package 'no_such'",
    ),
    "the AnsNet's sha256": (ANSNET, f"{ANSNET}\n  sha256: '{NO_SHA}'", "9:11: ./.tiny/ansnet does not match 'sha256'"),
    "the text": (TRAIN, "train: {source: ./absent.txt", "13:19: ./absent.txt does not exist"),
    "the text to measure on": ("eval: {", "eval: {source: ./absent.txt, ", "14:18: ./absent.txt does not exist"),
    "the bridge's tokenizer": (
        "  anchors:",
        "  bridge: {tokenizer: ./absent}\n  anchors:",
        "24:23: ./absent does not exist",
    ),
    "a checkpoint to start from": (
        "{name: small, params: 200k}",
        "{name: small, shape: {layers: 2}, init: {checkpoint: ./absent}}",
        "26:60: ./absent does not exist",
    ),
}


@pytest.mark.parametrize(("old", "new", "told"), UNAVAILABLE.values(), ids=UNAVAILABLE)
def test_a_source_that_is_unavailable_is_told_where_the_spec_names_it(project, colbuild, old, new, told):
    replace_in(project / SPEC, old, new)
    ran = colbuild("plan", SPEC)
    assert f"error: {SPEC}:{told}" in ran.err
    assert ran.code == EXIT_SOURCE_UNAVAILABLE
    assert "^" in ran.err, "and the line is shown"


@pytest.mark.parametrize("command", COMMANDS)
def test_every_source_that_is_unavailable_is_told_at_once(project, colbuild, command):
    replace_in(project / SPEC, ANSNET, "source: ./absent")
    replace_in(project / SPEC, TRAIN, "train: {source: ./absent.txt")
    ran = colbuild(command, SPEC)
    assert ran.code == EXIT_SOURCE_UNAVAILABLE
    assert "2 sources are unavailable" in ran.err
    assert f"{SPEC}:9:11: ./absent" in ran.err
    assert f"{SPEC}:13:19: ./absent.txt" in ran.err


@pytest.mark.parametrize(
    ("command", "config", "told"),
    [("plan", '{"model_type": "mamba"}', "mamba"), ("lock", "{", "is not JSON"), ("build", "[]", "not a JSON object")],
)
def test_a_source_that_is_no_model_is_a_mistake_in_the_spec(project, colbuild, command, config, told):
    (project / ".tiny" / "ansnet" / "config.json").write_text(config)
    ran = colbuild(command, SPEC)
    assert ran.code == EXIT_SPEC_ERROR
    assert f"error: {SPEC}:9:11: " in ran.err
    assert told in ran.err.split("\n")[0]


def test_a_config_that_an_older_colbuild_locked_is_refused_at_the_same_place(project, colbuild):
    assert colbuild("lock", SPEC).code == 0
    path = project / "specs" / "tiny.lock"
    lock = read_lock(path, "specs/tiny.lock")
    assert isinstance(lock, Lock)
    write_lock(path, replace(lock, ansnet={**lock.ansnet, "model_type": "mamba"}))
    ran = colbuild("plan", SPEC, "--frozen")
    assert (ran.code, f"{SPEC}:9:11: " in ran.err) == (EXIT_SPEC_ERROR, True)


def test_a_text_that_a_step_cannot_read_is_told_where_the_spec_names_it(project, colbuild):
    (project / ".tiny" / "corpus.txt").write_text("\n" * 100_000)
    ran = colbuild("build", SPEC)
    assert ran.code == EXIT_SPEC_ERROR
    assert f"corpus train: {SPEC}:13:19: " in ran.err


def test_an_archive_in_place_of_a_text_is_told_by_the_plan_where_the_spec_names_it(project, colbuild):
    (project / ".tiny" / "corpus.txt").write_bytes(b"PK\x03\x04 and more")
    ran = colbuild("plan", SPEC)
    assert ran.code == EXIT_SPEC_ERROR
    assert f"error: {SPEC}:13:19: " in ran.err
    assert "zip" in ran.err


def test_a_model_with_nan_in_it_is_refused_where_the_spec_names_it(project, colbuild):
    path = project / ".tiny" / "ansnet" / "model.safetensors"
    weights = load_file(path)
    weights["model.norm.weight"][3] = float("nan")
    save_file(weights, path, metadata={"format": "pt"})
    ran = colbuild("build", SPEC)
    assert ran.code == EXIT_SPEC_ERROR
    assert f"{SPEC}:9:11: model.norm.weight in " in ran.err
    assert "contains NaN or infinite weights" in ran.err


def test_a_turn_that_the_family_does_not_take_is_told_before_the_first_step(project, colbuild):
    large = "{name: large, shape: {layers: 5, ffn: 160}, init: {checkpoint: hf://org/x@main, align: procrustes}}"
    replace_in(project / SPEC, "{name: large, params: 350k}", large)
    ran = colbuild("plan", SPEC)
    assert ran.code == EXIT_SPEC_ERROR
    assert f"{SPEC}:25:94: 'align' is procrustes" in ran.err
    assert "the head is tied to the embedding" in ran.err
    assert "write align: permute" in ran.err


def test_a_source_that_is_named_twice_is_told_where_the_mistake_is(project, colbuild):
    large = "{name: large, shape: {layers: 5, ffn: 160}, init: {checkpoint: ./.tiny/ansnet}}"
    replace_in(project / SPEC, "{name: large, params: 350k}", large)
    ran = colbuild("plan", SPEC)
    assert ran.code == EXIT_SPEC_ERROR
    assert f"error: {SPEC}:25:70: the checkpoint has another shape" in ran.err
