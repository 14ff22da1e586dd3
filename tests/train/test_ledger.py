"""The figures of a training, and what they rest on."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
import torch

from colbuild.arch import forward_flops, read_structure
from colbuild.plan.shapes.route import distillation_flops
from colbuild.train.watching import ledger as module
from colbuild.train.watching.ledger import ledger_from_json, ledger_to_json, peak_flops, peak_memory, training_ledger

CPU = torch.device("cpu")


def ledger(**changes):
    values = {
        "tokens": 1000, "timed_tokens": 400, "seconds": 2.0, "teacher_forward": 50, "student_forward": 20.0, "device": CPU,
        "final_loss": 3.5, "heldout_loss": 3.75, "kl_to_teacher": 0.25,
    }  # fmt: skip
    return training_ledger(**values | changes)


def test_flops_are_those_that_the_plan_counts():
    config = {
        "model_type": "llama", "num_hidden_layers": 2, "hidden_size": 32, "intermediate_size": 64, "num_attention_heads": 4,
        "num_key_value_heads": 2, "vocab_size": 100, "tie_word_embeddings": True,
    }  # fmt: skip
    teacher, student = forward_flops(read_structure(config), 16), forward_flops(read_structure(config), 16) // 2
    found = ledger(teacher_forward=teacher, student_forward=student)
    assert found.teacher_flops + found.student_flops == distillation_flops(1000, teacher, student)


def test_a_teacher_from_a_cache_costs_nothing():
    assert ledger(teacher_forward=0).teacher_flops == 0


def test_speed_is_that_of_this_run_alone():
    found = ledger()
    assert (found.tokens, found.tokens_per_second, found.seconds) == (1000, 200.0, 2.0)


def test_mfu_is_unknown_on_a_cpu():
    assert ledger().mfu is None
    assert ledger().device == "cpu"


@pytest.mark.parametrize("devices", [1, 2])
def test_mfu_is_the_models_flops_as_a_share_of_the_peak(monkeypatch, devices):
    monkeypatch.setattr(module, "device_name", lambda device: "NVIDIA A100-SXM4-80GB")
    # 50 + 3 * 20 FLOPs a token.
    found = ledger(timed_tokens=10**12, seconds=1.0, devices=devices)
    assert found.mfu == pytest.approx(110e12 / 312e12 / devices, abs=1e-4)


@pytest.mark.parametrize(
    ("name", "tera"),
    [
        ("NVIDIA H200", 989),
        ("NVIDIA H200 NVL", 835),
        ("NVIDIA GH200 480GB", 989),
        ("NVIDIA H100 80GB HBM3", 989),
        ("NVIDIA H100 PCIe", 756),
        ("NVIDIA H100 NVL", 835),
        ("NVIDIA A100-SXM4-40GB", 312),
        ("NVIDIA A100 80GB PCIe", 312),
        ("NVIDIA L4", 121),
        ("NVIDIA L40S", 362),
        ("NVIDIA GeForce RTX 4090", 165),
        ("NVIDIA GeForce RTX 3090", 71),
    ],
)
def test_peaks_go_by_the_whole_name(name, tera):
    assert peak_flops(name) == tera * 1e12


@pytest.mark.parametrize(
    "name",
    ["cpu", "mps", "NVIDIA A10", "NVIDIA L40", "Tesla T4", "NVIDIA GeForce RTX 4090 Laptop GPU", "NVIDIA GeForce RTX 3090 Ti",
     "NVIDIA H100 80GB HBM3 MIG 1g.10gb"],
)  # fmt: skip
def test_a_device_that_nobody_looked_up_has_no_peak(name):
    assert peak_flops(name) is None


def test_peak_memory_remembers_what_is_gone():
    before = peak_memory(CPU)
    filled = torch.ones(before // 4 + 10_000_000)
    most = peak_memory(CPU)
    del filled
    assert most > before + 30_000_000
    # The kernel adds up its processors' counters when it is asked, and not to the page.
    assert peak_memory(CPU) > most - 1_000_000


def test_a_ledger_survives_json():
    found = ledger()
    assert ledger_from_json(json.loads(json.dumps(ledger_to_json(found)))) == found
    unmeasured = ledger(heldout_loss=None, kl_to_teacher=None)
    assert ledger_from_json(json.loads(json.dumps(ledger_to_json(unmeasured)))) == unmeasured


@pytest.mark.parametrize("noted", [{}, {"bytes": 3}, {"tokens": "many"}])
def test_what_another_step_noted_is_no_ledger(noted):
    assert ledger_from_json(noted) is None


def test_reading_a_ledger_imports_no_torch():
    script = "import sys, colbuild.train.watching.ledger; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0
