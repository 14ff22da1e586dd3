"""Prints the AnsNet in fewer bits beside a family's packages, and compares the two where both are measured."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from colbuild.plan.shapes.members import ANSNET
from colbuild.plan.shapes.rounded_ansnet import Alternatives, Reached, Rounded
from colbuild.units import format_bytes

_NAMED: Final = 3
"""More packages than this are counted."""
_NONE: Final = "–"


def forms_line(found: Alternatives) -> str:
    """The AnsNet's forms in a line, for a plan: "the AnsNet as a package: int8 153.6 MB, int4 at most 107.8 MB"."""
    forms = ", ".join(f"{form.form} {_sized(form)}" for form in found.forms)
    return f"the AnsNet as a package: {forms}"


def form_cells(form: Rounded) -> tuple[str, ...]:
    """A form's cells in the columns of a family's table (`colbuild.report.screen.table_view.MODEL_COLUMNS`)."""
    return (
        f"AnsNet {form.form}",
        f"{ANSNET}, rounded",
        _NONE,
        _NONE,
        _NONE if form.bits_per_byte is None else f"{form.bits_per_byte:.3f}",
        _NONE if form.agreement is None else f"{form.agreement:.0%}",
        _NONE,
        f"{_sized(form)}  {form.profile}" if form.built else _sized(form),
    )


def remarks(found: Alternatives) -> Iterator[str]:
    """Says which packages a form of the AnsNet is about as small as, and which of the two is better, if that is measured."""
    for form in found.forms:
        own = [package for package in found.reached if package.form == form.form]
        if worse := [package for package in own if package.ansnet_is_better is True]:
            yield _better(form, worse)
        if unknown := [package for package in own if package.ansnet_is_better is None]:
            yield _unknown(form, unknown)
    if found.packages and not found.reached:
        yield "Every package of a DesNet is smaller than the AnsNet in 4 bits."


def _better(form: Rounded, packages: Sequence[Reached]) -> str:
    fit = f"If {format_bytes(form.size)} fit, the AnsNet at {form.form} is better: {form.bits_per_byte:.3f} bits/byte"
    told = [
        f"{package.package} ({format_bytes(package.size)}) has {package.bits_per_byte:.3f}"
        for package in packages[:_NAMED]
    ]
    return f"{fit}; {', '.join(told)}{_more(packages)}."


def _unknown(form: Rounded, packages: Sequence[Reached]) -> str:
    told = [f"{package.package} {_sized(package)}" for package in packages[:_NAMED]]
    sizes = f"The AnsNet at {form.form} takes {_sized(form)}; {', '.join(told)}{_more(packages)}."
    if form.profile is None:
        return f"{sizes} To compare them, add a profile with {form.asked} to the AnsNet's 'exports'."
    # A built form that is not measured has no held-out text to be measured on.
    measurable = not form.built or form.bits_per_byte is not None
    return f"{sizes} The build measures which is better." if measurable else sizes


def _more(packages: Sequence[Reached]) -> str:
    return f" and {len(packages) - _NAMED} more" if len(packages) > _NAMED else ""


def _sized(package: Rounded | Reached) -> str:
    return format_bytes(package.size) if package.built else f"at most {format_bytes(package.size)}"
