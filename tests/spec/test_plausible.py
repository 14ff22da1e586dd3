"""Values that are legal and hardly meant are warnings, at their line."""

from __future__ import annotations

import pytest
from pydantic import BaseModel

from colbuild.spec import load_family
from colbuild.spec.model.family import Family
from colbuild.spec.project.plausible import USUAL, unlikely
from tests.helpers.project import ROOT
from tests.plan.families import ANCHORS, DISTILL, load

PHONE = "  - {name: phone, params: 88M, exports: [phone-int8]}\n"


def told(root, **parts):
    loaded = load(root, **{"desnets": PHONE, **parts})
    return [f"{problem.place}: {problem.message}" for problem in unlikely(loaded.family, loaded.places)]


@pytest.mark.parametrize(
    ("parts", "place", "says"),
    [
        ({"distill": DISTILL.replace("5e-4", "1e9")}, "recipes/distill.yaml:5", "'lr' is 1e+09, which is unusual"),
        ({"distill": DISTILL.replace("1.0", "1e4")}, "recipes/distill.yaml:3", "'temperature' is 10000"),
        ({"distill": DISTILL.replace("1.0", "1e-9")}, "recipes/distill.yaml:3", "the usual range is at least 0.05"),
        ({"distill": DISTILL.replace("256", "3")}, "recipes/distill.yaml:1", "'sequence' is 3"),
        ({"distill": DISTILL.replace("batch: 8", "batch: 10000000")}, "recipes/distill.yaml:6", "'batch' is 1e+07"),
        (
            {"distill": DISTILL.replace("batch: 8", "batch: 40000")},
            "recipes/distill.yaml:6",
            "a step of 40,000 x 256 tokens has 10.2M, more than the",
        ),
        ({"distill": DISTILL + "schedule: {warmup: 0.9}\n"}, "recipes/distill.yaml:7", "'warmup' is 0.9"),
        (
            {"distill": DISTILL.replace("lr: 5e-4", "weight_decay: 50, clip: 1e-9, eps: 1")},
            "recipes/distill.yaml:5",
            "'weight_decay' is 50",
        ),
        ({"distill": DISTILL.replace("lr: 5e-4", "betas: [0.01, 0.9]")}, "recipes/distill.yaml:5", "'betas' is 0.01"),
        (
            {"anchors": ANCHORS.replace("params: 76M", "params: 76M, tokens: 12")},
            "specs/family.yaml:11",
            "'tokens' is 12,",
        ),
        ({"data": "  train: {source: ./c.txt, heldout: 0.95}\n"}, "specs/family.yaml:5", "'heldout' is 0.95"),
        ({"data": "  train: {source: ./c.txt, limit: 8}\n"}, "specs/family.yaml:5", "'limit' is 8 B"),
        (
            {"data": "  train: {generate: {tokens: 40k, temperature: 90}}\n"},
            "specs/family.yaml:5",
            "'temperature' is 90",
        ),
        ({"profile": "context: 3\n"}, "exports/phone-int8.yaml:1", "'context' is 3"),
        ({"profile": "limits: {max_package: 100}\n"}, "exports/phone-int8.yaml:1", "'max_package' is 100 B"),
        ({"profile": "precision: int4\nrecover: {lr: 5}\n"}, "exports/phone-int8.yaml:2", "'lr' is 5"),
        ({"extra": "defaults: {interpolate: {tokens: 7}}\n"}, "specs/family.yaml:14", "'tokens' is 7"),
    ],
)
def test_a_value_that_is_hardly_meant_is_told_at_its_line(tmp_path, parts, place, says):
    found = told(tmp_path, **parts)
    assert any(line.startswith(place) and says in line for line in found), found
    assert len(found) == len(set(found))


def test_a_family_as_people_write_it_has_none(tmp_path):
    assert told(tmp_path) == []
    for path in sorted((ROOT / "specs").glob("*.yaml")):
        loaded = load_family(path)
        assert unlikely(loaded.family, loaded.places) == [], path.name


def test_nothing_is_said_of_defaults(tmp_path):
    loaded = load(tmp_path, desnets=PHONE)
    assert all("clip" not in problem.message for problem in unlikely(loaded.family, loaded.places))
    assert USUAL, "and each default is usual"
    for (model, key), usual in USUAL.items():
        default = model.model_fields[key].default
        values = default if isinstance(default, tuple) else (default,)
        assert all(usual.holds(value) for value in values if isinstance(value, int | float)), key


def test_every_number_without_narrow_bounds_has_a_range():
    """So that a new key gets one, or is said to need none."""
    needless = {
        # A seed is any number; sizes and shapes are solved or refused where they cannot be.
        *("seed", "params", "layers", "hidden", "ffn", "heads", "kv_heads", "positions", "train"),
        # Bounded as they are.
        *("opset", "block", "embedding_bits", "share", "skew", "final", "decay", "alpha"),
    }
    missing = {
        key
        for model in _models(Family)
        for key, info in model.model_fields.items()
        if key not in needless
        and _is_number(info.annotation)
        and not any((kind, key) in USUAL for kind in model.__mro__)
    }
    assert missing == set()


def _models(model, seen=None):
    from typing import get_args

    seen = {} if seen is None else seen
    if model in seen:
        return seen
    seen[model] = None

    def walk(annotation):
        if isinstance(annotation, type) and issubclass(annotation, BaseModel):
            _models(annotation, seen)
        for part in get_args(annotation):
            walk(part)

    for info in model.model_fields.values():
        walk(info.annotation)
    return seen


def _is_number(annotation) -> bool:
    from typing import get_args

    return annotation in (int, float) or any(_is_number(part) for part in get_args(annotation))
