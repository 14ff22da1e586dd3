"""The comparisons in a saved plan: with direct distillation, and with the AnsNet in fewer bits."""

from __future__ import annotations

from typing import Annotated

from pydantic import ConfigDict, Field

from colbuild.plan.cost.ansnet_reads import Cheaper
from colbuild.spec.model.fields import Model


class PlanPart(Model):
    """A frozen part of a saved plan. Fields that a later colbuild added are ignored."""

    model_config = ConfigDict(extra="ignore")


class SavedReads(PlanPart):
    """The AnsNet's reads for the whole family, compared with distilling each DesNet from it."""

    tokens: Annotated[int, Field(description="Tokens that the AnsNet reads to teach; a cached teacher counts once.")]
    times: Annotated[int, Field(description="Steps in which the AnsNet teaches.")]
    flops: Annotated[int, Field(description="FLOPs of making all models of the family.")]
    direct_tokens: Annotated[
        tuple[int, ...], Field(description="For each DesNet, the tokens of distilling it directly.")
    ]
    direct_flops: Annotated[int, Field(description="FLOPs of these distillations.")]
    cheaper: Annotated[
        Cheaper | None,
        Field(description="Which takes fewer FLOPs: the family's chain, or direct distillation; null in older plans."),
    ]


class SavedForm(PlanPart):
    """The AnsNet as a package of fewer bits."""

    form: Annotated[str, Field(description="The form: int8, int4, '4 bits in all', or another precision.")]
    asked: Annotated[str, Field(description="The lines of a device profile that asks for it.")]
    size: Annotated[int, Field(description="Bytes of the package; at most, unless it is built.")]
    profile: Annotated[str | None, Field(description="The AnsNet's profile of this form; null if it has none.")]
    built: Annotated[bool, Field(description="Whether the package is in the store.")]
    bits_per_byte: Annotated[float | None, Field(description="On held-out text; null if not measured.")]
    agreement: Annotated[
        float | None, Field(description="How often its most likely token is the AnsNet's; null if not measured.")
    ]


class SavedReached(PlanPart):
    """A DesNet's package that a form of the AnsNet is about as small as."""

    package: Annotated[str, Field(description="The package, as in 'phone/phone-int8'.")]
    size: Annotated[int, Field(description="Its bytes; at most, unless it is built.")]
    built: Annotated[bool, Field(description="Whether it is in the store.")]
    bits_per_byte: Annotated[float | None, Field(description="On held-out text; null if not measured.")]
    form: Annotated[str, Field(description="The form of the AnsNet that is compared with it.")]
    ansnet_is_better: Annotated[
        bool | None, Field(description="Whether that form has fewer bits per byte; null if one is not measured.")
    ]


class SavedAlternatives(PlanPart):
    """The AnsNet in fewer bits, beside the packages of the DesNets."""

    forms: Annotated[tuple[SavedForm, ...], Field(description="From large to small.")]
    reached: Annotated[
        tuple[SavedReached, ...], Field(description="The packages that a form is about as small as, within a tenth.")
    ]
    packages: Annotated[int, Field(description="The number of packages of DesNets.")]
