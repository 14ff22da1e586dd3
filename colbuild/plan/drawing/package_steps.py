"""The steps that make packages: a model rounded and trained to live with it, where a profile asks for that, and its export.

::

    interpolate phone ─┬─> quantise phone/watch-int4 ─┬─> export phone/watch-int4      recover: quantised
                       └──────────────────────────────┘
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from colbuild.plan.drawing.draft import SPLIT, Draft, FamilyPath
from colbuild.plan.drawing.step import Step
from colbuild.plan.drawing.training_params import recipe_params, settings
from colbuild.spec.model.decides import own_params
from colbuild.spec.model.device import Profile
from colbuild.spec.model.family import DataSection


def draw_quantised(
    draft: Draft, name: str, profile: Profile, model: str, corpus: str, path: FamilyPath, split: str
) -> str:
    """Draws the training of a model with rounded weights; returns its id."""
    recovery = profile.recover
    assert recovery is not None
    recipe = recovery.recipe()
    return draft.add(
        Step(
            f"quantise {name}",
            "quantise",
            {"profile": _rounding(profile), "recipe": recipe_params(recipe), "split": split},
            inputs={"model": model, "corpus": corpus},
            settings=settings(recipe),
        ),
        {"": path, "profile": path, "recipe": (*path, "recover"), "split": SPLIT},
    )


def _rounding(profile: Profile) -> dict[str, Any]:
    """As much of a profile as decides how its matrices are rounded; measurements also depend on the room that there is."""
    values = own_params(profile)
    deciding = {"precision", "block", "keep_8bit", "embedding_bits", "calibration"}
    if profile.stored.measured:
        deciding |= {"operators", "opset", "context", "static"}
        most = values["limits"]["max_package"]
        return {key: values[key] for key in sorted(deciding)} | {"limits": {"max_package": most}}
    return {key: values[key] for key in sorted(deciding)}


def draw_export(
    draft: Draft,
    name: str,
    profile: Profile,
    inputs: Mapping[str, str],
    path: FamilyPath,
    versions: Mapping[str, str],
    data: DataSection,
) -> str:
    """Draws a package; returns its step's id."""
    params: dict[str, Any] = {"profile": own_params(profile)}
    params |= {"versions": dict(versions), "heldout_split": data.eval.split}
    places: dict[str, FamilyPath] = {"": path, "profile": path, "heldout_split": ("data", "eval", "split")}
    if "corpus" in inputs:
        params["split"], places["split"] = data.train.split, SPLIT
    return draft.add(Step(f"export {name}", "export", params, inputs=dict(inputs)), places)
