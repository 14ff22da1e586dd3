"""The whole path on the tiny family: from its file to packages that answer."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from transformers import AutoModelForCausalLM

from colbuild.hashing import scan_tree, tree_digest
from tests.helpers.project import ROOT, command, copy_project, replace_in

SPEC = "specs/tiny.yaml"
MODELS = {"large", "small", "middle", "shaped", "least"}


@pytest.fixture
def built(finished_project, tmp_path, monkeypatch, capsys):
    """A copy of the finished project that a test may change, and the command line in it."""
    folder = tmp_path / "copy"
    shutil.copytree(finished_project[0], folder, symlinks=True)
    return folder, command(folder, monkeypatch, capsys)


def ran_steps(output: str) -> list[str]:
    """The steps that a `build --json` ran."""
    events = [json.loads(line) for line in output.splitlines()]
    return [event["step"] for event in events if event["event"] == "step_finished"]


def test_build_prints_every_model_next_to_the_ansnet(finished_project):
    output = finished_project[1]
    for name in ("ansnet", *MODELS):
        assert any(line.startswith(name) for line in output.splitlines()), output
    assert "Built tiny" in output


def test_every_model_is_a_folder_that_transformers_loads_strictly(finished_project):
    out = finished_project[0] / "out" / "tiny"
    for name in MODELS:
        model, info = AutoModelForCausalLM.from_pretrained(out / name / "checkpoint", output_loading_info=True)
        assert not any(info[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys")), info
        assert torch.isfinite(model(torch.tensor([[1, 2, 3]])).logits).all()


def test_packages_answer_from_plain_onnxruntime(finished_project):
    out = finished_project[0] / "out" / "tiny"
    for folder in (out / "middle" / "tiny-int8", out / "middle" / "tiny-fp32", out / "ansnet" / "tiny-fp32"):
        graph = next((folder / "onnx").glob("*.onnx"))
        session = onnxruntime.InferenceSession(str(graph), providers=["CPUExecutionProvider"])
        tokens = np.array([[1, 2, 3]], dtype=np.int64)
        feeds = {"input_ids": tokens, "attention_mask": np.ones_like(tokens)}
        for item in session.get_inputs():
            if item.name.startswith("past_key_values"):
                feeds[item.name] = np.zeros((1, item.shape[1], 0, item.shape[3]), dtype=np.float32)
            elif item.name == "position_ids":
                feeds[item.name] = np.arange(3)[None]
        logits = session.run(["logits"], feeds)[0]
        assert logits.shape[-1] == 512
        assert np.isfinite(logits).all()


def test_run_answers_without_torch(finished_project):
    code = (
        "import sys\n"
        "class Refuse:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name.split('.')[0] in ('torch', 'transformers', 'onnx'): raise ImportError(name + ' must not be needed')\n"
        "sys.meta_path.insert(0, Refuse())\n"
        "from colbuild.cli import main\n"
        "main()\n"
    )
    arguments = ["run", "out/tiny/middle/tiny-int8", "--prompt", "Ada builds", "--max-tokens", "8"]
    answer = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        cwd=finished_project[0],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert answer.returncode == 0, answer.stderr
    assert len(answer.stdout) > 1
    assert "new tokens" in answer.stderr


def test_second_build_does_nothing_and_says_so(built):
    folder, colbuild = built
    before = tree_digest(scan_tree(folder / "out"))
    again = colbuild("build", SPEC)
    assert again.code == 0
    assert "Nothing to do" in again.out
    assert tree_digest(scan_tree(folder / "out")) == before
    assert "nothing to do" in colbuild("plan", SPEC).out


def test_changed_recipe_value_reruns_only_what_depends_on_it(built):
    folder, colbuild = built
    replace_in(folder / "recipes" / "recover.yaml", "lr: 1e-4", "lr: 2e-4")
    ran = ran_steps(colbuild("build", SPEC, "--json").out)
    assert ran == ["recover shaped", "evaluate shaped", "export shaped/tiny-int8"]


def test_one_space_in_the_chat_template_packages_anew_and_trains_nothing(built):
    folder, colbuild = built
    before, out = _outputs(folder), folder / "out" / "tiny"
    settings = folder / ".tiny" / "ansnet" / "tokenizer_config.json"
    whole = json.loads(settings.read_text())
    whole["chat_template"] += " "
    settings.write_text(json.dumps(whole))
    waiting = {plan["id"]: plan for plan in _pending(colbuild("plan", SPEC, "--json").out)}
    exports = {step for step in before if step.startswith("export ")}
    assert {step: plan["state"] for step, plan in waiting.items()} == {
        "source ansnet": "changed",
        **dict.fromkeys(exports, "conditional"),
    }
    assert {waiting[step]["why"] for step in exports} == {"only if the AnsNet's chat template changes"}
    assert set(ran_steps(colbuild("build", SPEC, "--json").out)) == {"source ansnet", *exports}
    after = _outputs(folder)
    assert {step for step in before if before[step] != after[step]} == {"source ansnet", *exports}
    for place in (out / "small" / "checkpoint", out / "middle" / "checkpoint", out / "middle" / "tiny-int8"):
        assert (place / "chat_template.jinja").read_text() == whole["chat_template"]
    assert "Nothing to do" in colbuild("build", SPEC).out


def _pending(text: str) -> list[dict[str, str]]:
    """The steps of a `plan --json` that are not in the store."""
    return [step for step in json.loads(text)["steps"] if step["state"] != "cached"]


def test_a_step_sees_nothing_of_a_model_but_the_parts_in_its_key(built):
    folder, _ = built
    stored = folder / ".colbuild"
    for step, digest in _outputs(folder).items():
        files = {path.name for path in (stored / "objects" / digest[:2] / digest / "files").iterdir()}
        if step.startswith(("order", "distill", "interpolate", "recover")):
            # Whatever such a step finds of a tokenizer, it would hand on.
            assert "model.safetensors" in files
            assert not files & {"tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "origin.json"}


def test_removed_output_is_put_back_without_building(built):
    folder, colbuild = built
    shutil.rmtree(folder / "out")
    assert ran_steps(colbuild("build", SPEC, "--json").out) == []
    assert (folder / "out" / "tiny" / "middle" / "tiny-int8" / "manifest.json").exists()


def test_damaged_result_is_named_and_built_again(built):
    folder, colbuild = built
    record = next((folder / ".colbuild" / "steps" / "tiny").glob("evaluate*shaped*"))
    digest = json.loads(record.read_text())["output"]
    metrics = folder / ".colbuild" / "objects" / digest[:2] / digest / "files" / "metrics.json"
    metrics.parent.chmod(0o755)
    metrics.unlink()
    again = colbuild("build", SPEC)
    assert again.code == 0
    assert "damaged" in again.out
    assert "metrics.json is missing" in again.out
    assert metrics.exists()


@pytest.mark.slow
def test_killed_build_goes_on_and_gives_the_same_bytes(finished_project, tmp_path, tiny_inputs):
    project = copy_project(tmp_path / "killed", tiny_inputs)
    arguments = [sys.executable, "-m", "colbuild", "build", SPEC, "--json"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    finished = []
    with subprocess.Popen(arguments, cwd=project, env=environment, stdout=subprocess.PIPE, text=True) as build:
        assert build.stdout is not None
        for line in build.stdout:
            event = json.loads(line)
            if event["event"] == "step_finished":
                finished.append(event["step"])
            if event["event"] == "step_started" and event["step"] == "distill small":
                build.kill()
    assert "distill large" in finished
    again = subprocess.run(arguments, cwd=project, env=environment, capture_output=True, text=True, check=True)
    assert not set(ran_steps(again.stdout)) & set(finished)
    assert _outputs(project) == _outputs(finished_project[0])


@pytest.mark.slow
def test_with_other_cores_only_weights_may_differ_and_the_record_tells_the_threads(tmp_path, tiny_inputs):
    """Keys are the same, so whatever of the two is there first is used; what made it can be read in its record."""
    records = []
    for cores in ("1", "2"):
        project = copy_project(tmp_path / cores, tiny_inputs)
        arguments = [sys.executable, "-m", "colbuild", "build", SPEC, "--target", "large", "--cores", cores]
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "DNNL_MAX_CPU_ISA": "ALL"}
        subprocess.run(arguments, cwd=project, env=environment, check=True, capture_output=True)
        records.append({record["step"]: record for record in _records(project)})
    one, two = records
    for step in ("source ansnet", "corpus train"):
        assert one[step]["output"] == two[step]["output"]
    trained = [found["distill large"] for found in records]
    assert [record["ledger"]["made_with"]["threads"] for record in trained] == [1, 2]
    assert trained[0]["ledger"]["made_with"]["environment"]["DNNL_MAX_CPU_ISA"] == "ALL"
    assert {record["ledger"]["micro_batch"] for record in trained} == {trained[0]["ledger"]["micro_batch"]}
    folders = [
        tmp_path / cores / ".colbuild" / "objects" / record["output"][:2] / record["output"] / "files"
        for cores, record in zip(("1", "2"), trained, strict=True)
    ]
    entries = [{entry.path: entry.sha256 for entry in scan_tree(folder)} for folder in folders]
    differing = {path for path in entries[0] if entries[0][path] != entries[1][path]}
    assert entries[0].keys() == entries[1].keys()
    assert differing <= {"model.safetensors", "residual.safetensors", "lineage.json"}


def _records(project: Path) -> list[dict[str, Any]]:
    return [json.loads(path.read_text()) for path in (project / ".colbuild" / "steps" / "tiny").glob("*.json")]


def _outputs(project: Path) -> dict[str, str]:
    """Step -> digest of its result."""
    return {record["step"]: record["output"] for record in _records(project)}
