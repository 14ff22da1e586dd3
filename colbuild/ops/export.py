"""export: a model as a package for a device; see `docs/packages.md`."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Final

import torch
from transformers import PreTrainedModel

from colbuild.export.package.packaging import Texts, build_package, exported_model
from colbuild.export.package.quality import HeldOutText
from colbuild.ops.shared.running_models import asked_of, calibration, heldout_windows, model_of
from colbuild.ops.step_run import StepRun
from colbuild.plan.steps.export import ExportParams
from colbuild.weights.files.checkpoint import load_checkpoint, load_facts
from colbuild.weights.files.transformers_config import transformers_config

HELDOUT_TOKENS: Final = 2048
"""How much held-out text a package is measured on."""


def run(step: StepRun, params: ExportParams) -> None:
    """Packages a model and checks the package against the PyTorch model.

    Inputs: `model`; `heldout`, text to measure on; `corpus`, the family's text, where the profile's rounding is fitted on it,
    or `rounded`, the model as it was trained to be rounded.
    Params: `profile`, and `versions` of what takes part, which the manifest repeats; `split` and `heldout_split` of the two
    texts. The output is the package's folder.
    """
    folder = step.inputs["model"]

    def reference(dtype: torch.dtype) -> PreTrainedModel:
        return model_of(load_checkpoint(folder), dtype)

    profile = params.profile
    config = SimpleNamespace(config=transformers_config(load_facts(folder).config))
    fitted = None
    if "corpus" in step.inputs:
        assert params.split is not None
        fitted = calibration(step.inputs["corpus"], params.split, profile.calibration, config)
    heldout = None
    if "heldout" in step.inputs:
        held, split = step.inputs["heldout"], params.heldout_split
        windows = heldout_windows(held, split, HELDOUT_TOKENS, config)
        # The package reads no more at once.
        heldout = HeldOutText(windows, asked_of(held, split, windows)).within(profile.context)
    exported = exported_model(folder, reference)
    texts, trained = Texts(fitted, heldout), step.inputs.get("rounded")
    build_package(exported, profile, params.versions, step.output, step.reached, texts, trained)
