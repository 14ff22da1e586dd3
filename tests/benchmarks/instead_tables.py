"""The tables of `instead`: a row for each model and package, the best thing to ship by size, and what the issue asks for."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any, Final

from tests.benchmarks.harness import Bar, at_most
from tests.benchmarks.instead_families import Budget, Built, profile_name

OURS: Final = "ours"
DIRECT: Final = "direct"
ANSNET: Final = "the AnsNet"
_SAME: Final = 1.05
"""FLOPs that are more by less than this share count as equal."""


@dataclass(frozen=True)
class Scored:
    """A family that is built.

    Attributes:
        built: What it stands for.
        flops: What all its models take to make.
        models: Name -> its row of `status --json`.
    """

    built: Built
    flops: int
    models: Mapping[str, Mapping[str, Any]]

    @classmethod
    def of(cls, built: Built, found: Mapping[str, Any]) -> Scored:
        """From what is kept of it."""
        return cls(built, found["flops"], {model["name"]: model for model in found["models"]})

    @property
    def asked(self) -> list[Mapping[str, Any]]:
        """The models that stand for sizes, from the largest on."""
        return [self.models[name] for name in self.built.models]

    @property
    def mean(self) -> float:
        """Their mean bits per byte."""
        return sum(float(model["bits_per_byte"]) for model in self.asked) / len(self.asked)


@dataclass(frozen=True)
class Row:
    """A line of the table.

    Attributes:
        table: "ways", or "ship" for the best thing to ship.
        way: How the model comes to be.
        params: Its parameters.
        tokens: Training tokens of each training.
        flops: What all models of this way take to make.
        model_bits: Bits per byte of the model.
        form: Of the package.
        size: MB of the package.
        speed: Tokens a second of the package.
        package_bits: Bits per byte of the package.
    """

    table: str
    way: str
    params: int | None = None
    tokens: int | None = None
    flops: int | None = None
    model_bits: float | None = None
    form: str | None = None
    size: float | None = None
    speed: float | None = None
    package_bits: float | None = None

    def told(self) -> dict[str, Any]:
        """The line as the harness prints it."""
        return {
            "table": self.table,
            "way": self.way,
            "M parameters": None if self.params is None else round(self.params / 1e6, 1),
            "tokens": self.tokens,
            "TFLOPs of all": None if self.flops is None else round(self.flops / 1e12, 1),
            "bits/byte": None if self.model_bits is None else round(self.model_bits, 4),
            "package": self.form,
            "MB": None if self.size is None else round(self.size, 1),
            "tokens/s": None if self.speed is None else round(self.speed, 1),
            "bits/byte of the package": None if self.package_bits is None else round(self.package_bits, 4),
        }


def rows_of(found: Sequence[Scored], speeds: Mapping[str, float], budget: Budget) -> Iterator[Row]:
    """A row for each package of our models and of the AnsNet, and for each model of the other ways."""
    for scored in found:
        ours = scored.built.name == OURS
        if ours:
            yield from _packages(ANSNET, scored.models["ansnet"], speeds, budget)
        for model in scored.asked:
            row = Row(
                "ways",
                scored.built.way,
                model["parameters"],
                scored.built.tokens or None,
                scored.flops or None,
                model["bits_per_byte"],
            )
            yield from (_packages(row.way, model, speeds, budget, scored.built.tokens, scored.flops) if ours else [row])


def _packages(
    way: str,
    model: Mapping[str, Any],
    speeds: Mapping[str, float],
    budget: Budget,
    tokens: int | None = None,
    flops: int | None = None,
) -> Iterator[Row]:
    packages = {package["profile"]: package for package in model["packages"]}
    for form in budget.forms:
        package = packages[profile_name(form)]
        yield Row(
            "ways",
            way,
            model["parameters"],
            tokens,
            flops,
            model["bits_per_byte"],
            form,
            package["size"] / 1e6,
            speeds.get(f"{model['name']}/{profile_name(form)}"),
            package["bits_per_byte"],
        )


def frontier(rows: Sequence[Row], found: Sequence[Scored]) -> list[Row]:
    """The best package by size: a row from each size on at which another becomes the best.

    Other ways take part if all their models together took no more FLOPs than ours. Their packages have the bytes and the speed
    of ours of the same shape, and lose as much by rounding.
    """
    cheap = _as_cheap(found)
    packages = [row for row in rows if row.size and row.package_bits]
    for row in rows:
        if row.size is None and (row.way, row.tokens) in cheap:
            packages += _as_packed(row, [one for one in packages if one.way != ANSNET and one.params == row.params])
    best: list[Row] = []
    for row in sorted(packages, key=lambda row: (row.size or 0.0, row.package_bits or 0.0)):
        if not best or (row.package_bits or 0.0) < (best[-1].package_bits or 0.0):
            best.append(row)
    return [replace(row, table=f"ship from {row.size:.1f} MB on") for row in best]


def _as_cheap(found: Sequence[Scored]) -> set[tuple[str, int | None]]:
    """(way, tokens) of ways whose models together took no more FLOPs than ours."""
    spent: dict[tuple[str, int | None], list[float]] = {}
    sizes = len(_ours(found).asked)
    for scored in found:
        # A family of one size stands for as many as there are sizes.
        alone = len(scored.asked) == 1
        spent.setdefault((scored.built.way, scored.built.tokens or None), []).append(
            scored.flops * (sizes if alone else 1)
        )
    return {key for key, each in spent.items() if sum(each) / len(each) <= _SAME * _ours(found).flops}


def _as_packed(row: Row, ours: Sequence[Row]) -> Iterator[Row]:
    """A model's packages, from ours of the same shape."""
    for one in ours:
        loss = (one.package_bits or 0.0) - (one.model_bits or 0.0)
        yield replace(row, form=one.form, size=one.size, speed=one.speed, package_bits=(row.model_bits or 0.0) + loss)


def bars(found: Sequence[Scored], sizes: int) -> tuple[Bar, ...]:
    """Compute against direct distillation at equal quality."""
    return tuple(_compute(_ours(found), found, sizes))


def _ours(found: Sequence[Scored]) -> Scored:
    return next(scored for scored in found if scored.built.name == OURS)


def _compute(ours: Scored, found: Sequence[Scored], sizes: int) -> Iterator[Bar]:
    """Our FLOPs over those of distilling each size directly until the mean is as good as ours."""
    curve: dict[int, dict[int, Scored]] = {}
    for scored in found:
        if scored.built.name.startswith(DIRECT):
            [place] = scored.built.models.values()
            curve.setdefault(scored.built.tokens, {})[place] = scored
    if len(curve) < 2:
        return
    places = set.intersection(*(set(each) for each in curve.values()))
    points = [
        (sum(each[place].mean for place in places) / len(places), _distilling([each[place] for place in places], sizes))
        for _, each in sorted(curve.items())
    ]
    mean = sum(float(ours.models[f"d{place}"]["bits_per_byte"]) for place in places) / len(places)
    name = f"compute of {sizes} sizes over direct distillation at an equal mean of bits per byte"
    if mean < points[-1][0]:
        needed, bound = points[-1][1], ": at most this, as all distilled directly are worse"
    elif mean > points[0][0]:
        needed, bound = points[0][1], ": at least this, as all distilled directly are better"
    else:
        needed, bound = _at(points, mean), ""
    yield at_most(f"{name}{bound}", ours.flops / needed, 1 / 3)


def _distilling(each: Sequence[Scored], sizes: int) -> float:
    """FLOPs of as many distillations as there are sizes, with the order of the AnsNet counted once."""
    trained = [_ledger(one) for one in each]
    order = min(one.flops - flops for one, flops in zip(each, trained, strict=True))
    return sum(trained) * sizes / len(each) + max(0.0, order)


def _ledger(scored: Scored) -> float:
    ledger = scored.models["student"]["ledger"]
    return float(ledger["teacher_flops"] + ledger["student_flops"])


def _at(points: Sequence[tuple[float, float]], wanted: float) -> float:
    """The cost at which a falling curve of (quality, cost) reaches a quality; beyond its end, by the line of the last two.

    Bits per byte fall about linearly with the logarithm of the cost.
    """
    pairs = list(pairwise(points))
    (high, cheap), (low, dear) = next((pair for pair in pairs if pair[1][0] <= wanted <= pair[0][0]), pairs[-1])
    share = (high - wanted) / (high - low) if high > low else 1.0
    return math.exp(math.log(cheap) + share * (math.log(dear) - math.log(cheap)))


def scratch_note(found: Sequence[Scored], budget: Budget) -> str:
    """How many tokens a model from scratch needs until it is as good as the untrained DesNet of its size."""
    runs: dict[int, float] = {}
    for scored in found:
        if scored.built.name.startswith("scratch"):
            bits = float(scored.models["d"]["bits_per_byte"])
            runs[scored.built.tokens] = min(bits, runs.get(scored.built.tokens, bits))
    if len(runs) < 2:
        return ""
    wanted = float(_ours(found).models[f"d{budget.sizes // 2}"]["bits_per_byte"])
    fewest, most = min(runs), max(runs)
    reach = f"reach the untrained DesNet's {wanted:.3f} bits per byte"
    if wanted >= runs[fewest]:
        return f"From scratch, fewer than {fewest / 1e6:.2f}M tokens {reach}: these gave {runs[fewest]:.3f}."
    needed = _at([(bits, float(tokens)) for tokens, bits in sorted(runs.items())], wanted)
    far = f", extrapolated: {most / 1e6:.2f}M tokens gave {runs[most]:.3f}" if needed > most else ""
    return f"From scratch, {needed / 1e6:.2f}M tokens {reach}{far}."
