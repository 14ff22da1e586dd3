"""export: a model as a package for a device; see `docs/packages.md`."""

from __future__ import annotations

import torch

from colbuild.export.package import build_package, exported_model
from colbuild.ops.models import model_of
from colbuild.ops.step import StepRun
from colbuild.spec.models import Device
from colbuild.weights.checkpoint import load_checkpoint


def run(step: StepRun) -> None:
    """Packages a model and checks the package against the PyTorch model.

    Input: `model`. Params: `profile`, and `versions` of what takes part, which the manifest repeats. The output is the
    package's folder.
    """
    folder = step.inputs["model"]
    exported = exported_model(folder, lambda: model_of(load_checkpoint(folder), torch.float32))
    profile = Device.model_validate(step.params["profile"])
    build_package(exported, profile, step.params["versions"], step.output, step.report)
