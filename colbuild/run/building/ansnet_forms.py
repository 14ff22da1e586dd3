"""The AnsNet in fewer bits beside a family's packages, with sizes and quality of what is built."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Final

from colbuild.plan.family_plan import FamilyPlan, Workspace
from colbuild.plan.shapes.members import ANSNET
from colbuild.plan.shapes.package_size import tokenizer_bound
from colbuild.plan.shapes.rounded_ansnet import Alternatives, Measured, Package, alternatives
from colbuild.run.building.measured import PackageFacts, metrics_in, package_bits_per_byte, package_facts
from colbuild.store import ActionRecord

_CONTEXT: Final = 2048
"""The context of packages in a family that has none."""


def planned_alternatives(plan: FamilyPlan, workspace: Workspace) -> Alternatives:
    """The alternatives to a planned family, with what the store holds of it."""
    every = (*plan.steps, *(plan.selection.left if plan.selection else ()))
    outputs = {step.step.id: step.output for step in every if step.output is not None}
    return _Family(plan, {step: workspace.store.files(output) for step, output in outputs.items()}).alternatives()


def built_alternatives(plan: FamilyPlan, workspace: Workspace, records: Mapping[str, ActionRecord]) -> Alternatives:
    """The same, with what these records hold."""
    return _Family(
        plan, {step: workspace.store.files(record.output) for step, record in records.items()}
    ).alternatives()


class _Family:
    """A family's packages.

    Args:
        plan: The family.
        results: Step id -> folder of its result, for the steps that have one.
    """

    def __init__(self, plan: FamilyPlan, results: Mapping[str, Path]) -> None:
        self._plan, self._chain, self._results = plan, plan.chain, results
        self._graph = plan.selection.whole if plan.selection else plan.graph
        # As the steps have them: as long as the models' positions allow.
        steps = self._graph.by_id
        self._contexts = {
            package: int(steps[step].params["profile"]["context"]) for package, step in self._graph.packages.items()
        }
        self._known: dict[tuple[str, str], PackageFacts | None] = {}

    def alternatives(self) -> Alternatives:
        """The AnsNet in fewer bits, beside the packages of the DesNets."""
        profiles = [
            profile.model_copy(update={"context": self._contexts[ANSNET, profile.name]})
            for profile in self._plan.loaded.family.ansnet.exports
        ]
        return alternatives(
            self._chain.ansnet.structure,
            profiles,
            self._packages(),
            context=min(self._contexts.values(), default=_CONTEXT),
            tokenizer=self._tokenizer(of_ansnet=True),
            measured=self._measured,
        )

    def _packages(self) -> Iterator[Package]:
        """The packages of the DesNets."""
        bound = self._chain.tokenizer
        counted = tokenizer_bound(self._chain.top.shape.vocab) if bound is None else bound
        known = self._tokenizer(of_ansnet=False)
        less = 0 if known is None else counted - known
        for placed in self._chain.desnets:
            for profile, most in placed.packages.items():
                model = placed.member.name
                found = self._facts(model, profile)
                size = most - less if found is None else found.size
                yield Package(
                    f"{model}/{profile}", size, found is not None, partial(self._bits_per_byte, model, profile)
                )

    def _tokenizer(self, *, of_ansnet: bool) -> int | None:
        """Bytes of the AnsNet's tokenizer in a package, or of the DesNets'; those of one that is built, if any is."""
        own = self._chain.bridge is not None
        for model, profile in self._graph.packages:
            if not own or (model == ANSNET) == of_ansnet:
                found = self._facts(model, profile)
                if found is not None:
                    return found.tokenizer
        return None if own and of_ansnet else self._chain.tokenizer

    def _measured(self, profile: str) -> Measured | None:
        """The AnsNet's package for a profile, if it is built."""
        found = self._facts(ANSNET, profile)
        if found is None:
            return None
        return Measured(found.size, self._bits_per_byte(ANSNET, profile), found.agreement)

    def _bits_per_byte(self, model: str, profile: str) -> float | None:
        """A package's on held-out text; None if it was not measured."""
        metrics = metrics_in(self._results.get(self._graph.metrics.get(model, "")))
        return package_bits_per_byte(self._facts(model, profile), metrics)

    def _facts(self, model: str, profile: str) -> PackageFacts | None:
        """A package, if it is built."""
        key = model, profile
        if key not in self._known:
            self._known[key] = package_facts(self._results.get(self._graph.packages.get(key, "")))
        return self._known[key]
