"""export: a model as a package for a device.

::

    interpolate phone ─┬─> quantise phone/watch-int4 ─┬─> export phone/watch-int4      recover: quantised
                       └──────────────────────────────┘
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from colbuild.arch import parameters
from colbuild.plan.drawing.draft import SPLIT, Draft, Drawn, FamilyPath, Model
from colbuild.plan.drawing.step import Step
from colbuild.plan.operation import (
    CHAT,
    TEXTS,
    TOKENIZER,
    WEIGHTS,
    Operation,
    Params,
    Scene,
    TextNeed,
    Work,
)
from colbuild.plan.shapes.package_size import package_bytes
from colbuild.plan.steps import quantise
from colbuild.plan.workload.at_once import LONGEST_PROMPT, WINDOW
from colbuild.plan.workload.model_memory import FULL, TOKEN
from colbuild.spec.model.decides import own_params
from colbuild.spec.model.device import Profile
from colbuild.spec.model.family import DataSection

MANIFEST: Final = "manifest.json"
"""The file in which a package describes itself."""

_FITTING: Final = 3
"""How many times as long an export takes whose rounding is fitted; from one run of each (`tests.benchmarks.packages`)."""

_COMPARING: Final = 500_000_000
"""Memory of a build's processes while a package is compared, without its tokenizer."""


_COMPARED: Final = 8
"""How often the logits of that prompt are held while a package is compared, those of other prompts and of held-out text
counted with them."""


@dataclass(frozen=True)
class ExportParams(Params):
    """Parameters of `export`.

    Attributes:
        profile: The device profile.
        versions: Library -> its exact version.
        heldout_split: The split that the package's quality is measured on.
        split: For a rounding that is fitted, the split that it is fitted on.
    """

    profile: Profile
    versions: Mapping[str, str]
    heldout_split: str = "heldout"
    split: str | None = None

    def texts(self, roles: Collection[str]) -> Iterable[TextNeed]:
        """See `Params`."""
        if "corpus" in roles:
            yield TextNeed(self.profile.calibration, WINDOW, ("profile", "calibration"))


def _draw(drawn: Drawn, model: Model) -> None:
    """Draws a model's packages, each after the model is rounded and trained to live with it, where its profile asks for it."""
    for place, profile in enumerate(model.profiles):
        where: FamilyPath = (*model.path, "exports", place)
        name, data = f"{model.name}/{profile.name}", drawn.family.data
        inputs = {"model": model.made_by, "heldout": model.held}
        if profile.recover is not None:
            made = quantise.draw(drawn.draft, name, profile, model.made_by, model.train, where, data.train.split)
            inputs["rounded"] = made
        elif profile.fitted:
            inputs["corpus"] = model.train
        drawn.packages[model.name, profile.name] = _package(
            drawn.draft, name, profile, inputs, where, drawn.versions, data
        )


def _package(
    draft: Draft,
    name: str,
    profile: Profile,
    inputs: Mapping[str, str],
    path: FamilyPath,
    versions: Mapping[str, str],
    data: DataSection,
) -> str:
    params: dict[str, Any] = {"profile": own_params(profile)}
    params |= {"versions": dict(versions), "heldout_split": data.eval.split}
    places: dict[str, FamilyPath] = {"": path, "profile": path, "heldout_split": ("data", "eval", "split")}
    if "corpus" in inputs:
        params["split"], places["split"] = data.train.split, SPLIT
    return draft.add(Step("export", name, params, inputs=dict(inputs)), places)


def _work(params: ExportParams, scene: Scene) -> Work:
    """The package's session and the model that it is compared with: logits of prompts, of PyTorch and of the package."""
    model, profile = scene.model("model"), params.profile
    # Text to fit to is read only where the rounding is fitted.
    times = _FITTING if params.split is not None else 1
    packed = profile.stored.packed * model.shape.vocab * model.shape.hidden
    weights = FULL * parameters(model) + round(packed) + 2 * TOKEN * model.shape.vocab
    memory = _COMPARING + weights + _COMPARED * FULL * min(LONGEST_PROMPT, profile.context) * model.shape.vocab
    return Work(None, FULL * parameters(model) * times, package_bytes(model, profile), memory)


EXPORT: Final = Operation(
    op="export",
    epoch=6,
    params=ExportParams,
    module="colbuild.ops.export",
    work=_work,
    reads={"model": (WEIGHTS, TOKENIZER, CHAT, TEXTS)},
    draws=_draw,
    byte_share=4.3,  # 56 to 77 MB/s of weights in fp32, 8 runs
    verified_inputs=True,
    # onnxruntime starts threads when it is imported, and threads do not survive a fork: each such process imports it itself.
    forked=False,
)
