"""export: a model as a package for a device; see `docs/packages.md`."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Final

import torch
from transformers import AutoConfig, PreTrainedModel

from colbuild.export.package import Texts, build_package, exported_model
from colbuild.ops.models import calibration, model_of
from colbuild.ops.step import StepRun
from colbuild.spec.device import Device
from colbuild.weights.checkpoint import load_checkpoint

HELDOUT_TOKENS: Final = 2048
"""How much held-out text a package is measured on."""


def run(step: StepRun) -> None:
    """Packages a model and checks the package against the PyTorch model.

    Inputs: `model`; `heldout`, text to measure on; `corpus`, the family's text, where the profile's rounding is fitted on it.
    Params: `profile`, and `versions` of what takes part, which the manifest repeats; `split` and `heldout_split` of the two
    texts. The output is the package's folder.
    """
    folder = step.inputs["model"]

    def reference() -> PreTrainedModel:
        return model_of(load_checkpoint(folder), torch.float32)

    profile = Device.model_validate(step.params["profile"], strict=False)
    texts = Texts(
        _windows(step, "corpus", "split", profile.calibration),
        _windows(step, "heldout", "heldout_split", HELDOUT_TOKENS),
    )
    exported = exported_model(folder, reference)
    build_package(exported, profile, step.params["versions"], step.output, step.report, texts)


def _windows(step: StepRun, role: str, split: str, tokens: int) -> torch.Tensor | None:
    corpus: Path | None = step.inputs.get(role)
    if corpus is None:
        return None
    config = AutoConfig.from_pretrained(step.inputs["model"], local_files_only=True)
    return calibration(corpus, step.params[split], tokens, SimpleNamespace(config=config))
