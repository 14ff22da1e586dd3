"""The AnsNet in fewer bits, beside the family's packages: the usual alternative to a smaller model.

::

    AnsNet int8 153.6 MB   int4 102.2 MB   4 bits in all 88.5 MB        sizes from shapes, or of built packages
                              │
    phone/phone-int8 103.6 MB ┘  "reached": a form of the AnsNet is about as small; better or not, if both are measured
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from colbuild.arch import Structure
from colbuild.plan.shapes.package_size import package_bytes
from colbuild.spec.model.device import Device, Profile
from colbuild.spec.model.precision import PRECISIONS

NEAR: Final = 1.1
"""How much larger than a package a form of the AnsNet may be to count as an alternative: few devices have a limit that is
exact to a tenth."""


@dataclass(frozen=True)
class Form:
    """A way to store the AnsNet in fewer bits.

    Attributes:
        name: As tables and messages write it.
        profile: The settings of a profile that asks for it.
    """

    name: str
    profile: Device

    @property
    def asked(self) -> str:
        """The lines of such a profile, for hints."""
        embedding = ", embedding_bits: 4" if self.profile.embedding_bits == 4 else ""
        return f"precision: {self.profile.precision}{embedding}"

    def is_of(self, profile: Device) -> bool:
        """Whether a profile asks for this form."""
        return (profile.precision, profile.table_bits) == (self.profile.precision, self.profile.table_bits)


_UNIFORM: Final = tuple(row for row in PRECISIONS.values() if row.quantised and not row.measured)
FORMS: Final = (
    *(Form(row.name, Device(precision=row.name)) for row in _UNIFORM),
    *(Form("4 bits in all", Device(precision=row.name, embedding_bits=4)) for row in _UNIFORM if row.bits == 4),
)
"""From large to small."""


@dataclass(frozen=True)
class Measured:
    """A built package.

    Attributes:
        size: Its bytes.
        bits_per_byte: On held-out text; None if it was not measured.
        agreement: How often its most likely token is its model's, 0 to 1; None if it was not measured.
    """

    size: int
    bits_per_byte: float | None = None
    agreement: float | None = None


@dataclass(frozen=True)
class Rounded:
    """The AnsNet in one form.

    Attributes:
        form: The form's name.
        asked: The lines of a profile that asks for it.
        size: Bytes of the package; at most, unless it is built.
        profile: The profile of the AnsNet that asks for it; None if none does.
        built: Whether the package is built.
        bits_per_byte: On held-out text; None if it was not measured.
        agreement: How often its most likely token is the AnsNet's, 0 to 1; None if it was not measured.
    """

    form: str
    asked: str
    size: int
    profile: str | None = None
    built: bool = False
    bits_per_byte: float | None = None
    agreement: float | None = None


@dataclass(frozen=True)
class Package:
    """A package of a DesNet.

    Attributes:
        name: As in "phone/phone-int8".
        size: Its bytes; at most, unless it is built.
        built: Whether it is built.
        bits_per_byte: Measures it on held-out text; None if it was not measured.
    """

    name: str
    size: int
    built: bool
    bits_per_byte: Callable[[], float | None]


@dataclass(frozen=True)
class Reached:
    """A package that a form of the AnsNet is about as small as.

    Attributes:
        package: As in "phone/phone-int8".
        size: Its bytes; at most, unless it is built.
        built: Whether it is built.
        bits_per_byte: On held-out text; None if it was not measured.
        form: The finest form of the AnsNet of about its size.
        ansnet_is_better: Whether that form has fewer bits per byte; None if one of them was not measured.
    """

    package: str
    size: int
    built: bool
    bits_per_byte: float | None
    form: str
    ansnet_is_better: bool | None


@dataclass(frozen=True)
class Alternatives:
    """The AnsNet in fewer bits, and the packages that it reaches.

    Attributes:
        forms: From large to small.
        reached: The packages of DesNets that a form is about as small as.
        packages: How many packages of DesNets the family has.
    """

    forms: tuple[Rounded, ...]
    reached: tuple[Reached, ...]
    packages: int


def alternatives(
    ansnet: Structure,
    profiles: Sequence[Profile],
    packages: Iterable[Package],
    *,
    context: int,
    tokenizer: int | None,
    measured: Callable[[str], Measured | None],
) -> Alternatives:
    """Compares the AnsNet in fewer bits with a family's packages.

    Args:
        ansnet: The AnsNet.
        profiles: The profiles that it is exported for.
        packages: Those of the DesNets.
        context: Tokens that a package of a form takes that no profile asks for.
        tokenizer: Bytes of the AnsNet's tokenizer in a package; None if they are not known.
        measured: Name of a profile of the AnsNet -> its package; None if it is not built.
    """
    forms = tuple(sorted(_forms(ansnet, profiles, context, tokenizer, measured), key=lambda form: -form.size))
    every = tuple(packages)
    reached = tuple(found for package in every if (found := _reached(package, forms)) is not None)
    return Alternatives(forms, reached, len(every))


def _forms(
    ansnet: Structure,
    profiles: Sequence[Profile],
    context: int,
    tokenizer: int | None,
    measured: Callable[[str], Measured | None],
) -> Iterator[Rounded]:
    for form in FORMS:
        own = [profile for profile in profiles if form.is_of(profile)]
        for profile in own:
            yield _own(form.name, form.asked, ansnet, profile, tokenizer, measured(profile.name))
        if not own:
            plain = Profile(name="plain", **(form.profile.model_dump(exclude_unset=True) | {"context": context}))
            yield Rounded(form.name, form.asked, package_bytes(ansnet, plain, tokenizer))
    for profile in profiles:
        if profile.stored.quantised and not any(form.is_of(profile) for form in FORMS):
            asked = f"precision: {profile.precision}"
            yield _own(profile.precision, asked, ansnet, profile, tokenizer, measured(profile.name))


def _own(
    name: str, asked: str, ansnet: Structure, profile: Profile, tokenizer: int | None, found: Measured | None
) -> Rounded:
    """A form that a profile of the AnsNet asks for."""
    if found is None:
        most = profile.limits.max_package if profile.stored.measured else None
        return Rounded(name, asked, most or package_bytes(ansnet, profile, tokenizer), profile.name)
    return Rounded(name, asked, found.size, profile.name, True, found.bits_per_byte, found.agreement)


def _reached(package: Package, forms: Sequence[Rounded]) -> Reached | None:
    """The finest form of about a package's size, beside it; None if every form is clearly larger."""
    near = [form for form in forms if form.size <= NEAR * package.size]
    if not near:
        return None
    # Of forms that are measured, the best one: 4 bits after a recovery may be better than 8 without.
    known = [form for form in near if form.bits_per_byte is not None]
    form = min(known, key=lambda one: one.bits_per_byte or 0.0) if known else near[0]
    ours, theirs = package.bits_per_byte() if known else None, form.bits_per_byte
    better = None if ours is None or theirs is None else theirs < ours
    return Reached(package.name, package.size, package.built, ours, form.form, better)
