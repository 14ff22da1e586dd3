"""What the tests of packages share."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import onnx
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from colbuild.errors import BuildError
from colbuild.export.package.packaging import Texts, build_package, exported_model
from colbuild.export.package.quality import HeldOutText
from colbuild.ops.shared.running_models import build_model, model_of
from colbuild.progress import Progress, silent
from colbuild.spec.model.device import Device
from colbuild.weights.files.checkpoint import Checkpoint, load_checkpoint
from tests.helpers.steps import run_step
from tests.weights.helpers import random_checkpoint

VERSIONS = {"torch": "1", "onnx": "2", "onnxruntime": "3"}
CONTEXT = 256


def export(model: Path, output: Path, *, report: list[Progress] | None = None, **profile: Any) -> Path:
    """Runs the step as a plan would; returns the package's folder."""
    output.mkdir(parents=True)
    resolved = {"format": "onnx", "precision": "fp32", "block": 32, "context": CONTEXT, "limits": {"max_package": None}}
    params = {"profile": resolved | profile, "versions": VERSIONS}
    run_step("export", {"model": model}, params, output, (report if report is not None else []).append)
    return output


def failure(model: Path, output: Path, **profile: Any) -> BuildError:
    """The error that the export must end with."""
    try:
        export(model, output, **profile)
    except BuildError as error:
        return error
    raise AssertionError("the export did not fail")


def manifest(package: Path) -> dict[str, Any]:
    return json.loads((package / "manifest.json").read_text(encoding="utf-8"))


def graph_of(package: Path) -> onnx.GraphProto:
    return onnx.load(package / manifest(package)["graph"]["file"]).graph


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def save_llama(folder: Path, config: dict[str, Any]) -> Path:
    """A random llama without a tokenizer; its logits differ enough to be compared, its biases are not 0."""
    model = LlamaForCausalLM(LlamaConfig(**config, max_position_embeddings=512, initializer_range=0.08))
    for name, parameter in model.named_parameters():
        if name.endswith("bias"):
            parameter.data.normal_(std=0.1)
    model.save_pretrained(folder)
    return folder


def saved(config: dict, folder: Path, seed: int = 0) -> tuple[Path, Checkpoint]:
    checkpoint = random_checkpoint(config, seed)
    build_model(config, checkpoint.tensors, dtype=torch.float32).save_pretrained(folder)
    return folder, checkpoint


def text(seed: int, vocab: int = 512) -> torch.Tensor:
    return torch.randint(0, vocab, (4, 65), generator=torch.Generator().manual_seed(seed))


def build(model: Path, output: Path, **profile: object) -> Path:
    exported = exported_model(model, lambda dtype: model_of(load_checkpoint(model), dtype))
    device = Device.model_validate({"context": CONTEXT, **profile}, strict=False)
    build_package(exported, device, {}, output, silent, Texts(text(1), HeldOutText(text(2), text(2)[:, 1:])))
    return output
