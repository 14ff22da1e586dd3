"""A family as a notebook uses it: its plan, its build, its models and its packages.

>>> family = load("specs/family.yaml")
>>> family.build(progress=True)
>>> family.models["phone"].parameters
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from colbuild.errors import BuildError, StoppedError
from colbuild.interface.arguments import Shown, StrPath, as_path, listening, python_hints, switches, whole, words
from colbuild.interface.family_views import BuildResult, Model, Models, Packages, Plan, Status, Why
from colbuild.interface.packages import Package
from colbuild.plan.family_plan import FamilyPlan, Workspace, open_workspace, remote_url
from colbuild.plan.lock.lock import LockMode
from colbuild.plan.planning import check_possible, make_plan
from colbuild.run.build_request import Options
from colbuild.run.building.building import build
from colbuild.run.building.family_lock import lock_family
from colbuild.run.building.family_rows import family_status
from colbuild.run.building.landing import CHECKPOINT
from colbuild.run.building.plan_questions import explain_step
from colbuild.spec import LoadedFamily, load_family

Lock = Literal["refresh", "locked", "frozen"]


@python_hints()
def load(spec: StrPath, *, store: StrPath | None = None) -> Family:
    """Reads a family's file, with its recipes and device profiles.

    Args:
        spec: The file, such as specs/family.yaml.
        store: Where results are kept; by default `COLBUILD_STORE`, else `.colbuild` beside `specs/`.

    Raises:
        ColbuildError: With every mistake in the files, each at its place.
    """
    loaded = load_family(as_path(spec, "the family's file"))
    return Family(loaded, open_workspace(loaded, None if store is None else as_path(store, "the store")))


class Family:
    """A family of models, and where it is built.

    Args:
        loaded: What its file says.
        workspace: Its store, and the folder of its packages.
    """

    def __init__(self, loaded: LoadedFamily, workspace: Workspace) -> None:
        self._loaded, self._workspace = loaded, workspace

    @property
    def name(self) -> str:
        """Its name."""
        return self._loaded.family.name

    @property
    def path(self) -> Path:
        """Its file."""
        return self._loaded.path

    @python_hints()
    def plan(self, *targets: str, lock: Lock = "refresh", progress: Shown = False) -> Plan:
        """Plans the family: the steps of a build, and why. Nothing is built.

        Args:
            targets: Models, packages or steps, for these and what they need alone.
            lock: Whether the lock is refreshed, must be up to date (locked), or is used as it is (frozen).
            progress: True shows sources that are fetched; a function is told events.

        Raises:
            ColbuildError: The family cannot be planned.
        """
        with listening(progress) as listener:
            found = make_plan(self._loaded, self._workspace, listener, words(targets, "a target"), _mode(lock))
        check_possible(found)
        return Plan(found, self._workspace)

    @python_hints()
    def build(
        self,
        *targets: str,
        lock: Lock = "refresh",
        jobs: int | None = None,
        keep_going: bool = False,
        retries: int = 0,
        remote: str | None = None,
        push: bool = False,
        progress: Shown = False,
    ) -> BuildResult:
        """Builds what is not in the store yet, and puts models and packages into `out/`.

        Args:
            targets: Models, packages or steps, for these and what they need alone.
            lock: Whether the lock is refreshed, must be up to date (locked), or is used as it is (frozen).
            jobs: How many steps run side by side at most; as many as fit by default.
            keep_going: Whether to build on what does not need a step that failed.
            retries: How often a step is run again that crashed, ran out of memory or missed its source.
            remote: A remote cache to read results from, such as s3://bucket/path.
            push: Whether to put new results into the remote cache.
            progress: True shows what is done; a function is told events.

        Raises:
            ColbuildError: A step failed. What was finished is kept, and the next build goes on from there.
            KeyboardInterrupt: It was interrupted. The same holds.
        """
        most = None if jobs is None else whole(jobs, "jobs")
        switches(keep_going=keep_going, push=push)
        if remote is not None:
            from colbuild.store.remote.remote_opening import protocol_of

            protocol_of(words([remote], "the remote cache's URL")[0])
        url = remote_url(remote)
        if push and url is None:
            raise BuildError("push is True, and there is no remote", hint="give 'remote', or set COLBUILD_REMOTE")
        options = Options(most, keep_going, whole(retries, "retries", least=0), None, url, push)
        with listening(progress) as listener:
            found = make_plan(self._loaded, self._workspace, listener, words(targets, "a target"), _mode(lock))
            try:
                return BuildResult(self, found, build(found, self._workspace, listener, options))
            except StoppedError as error:
                # Whoever goes on after a ColbuildError must not go on after Ctrl-C.
                raise KeyboardInterrupt(error.message) from error

    def lock(self, *, progress: Shown = False) -> Path:
        """Brings the family's lock up to date, and returns its file.

        Raises:
            ColbuildError: The family cannot be planned, or a source is unavailable.
        """
        with listening(progress) as listener:
            return lock_family(self._loaded, self._workspace, listener).before.path

    def why(self, name: str) -> Why:
        """Explains a step: its inputs, its parameters, the changes since its last run, and the steps that need it.

        Args:
            name: A step, or a model, a package or a corpus for the step that makes it.

        Raises:
            ColbuildError: The family has no such step.
        """
        [step] = words([name], "the step's name")
        return Why(explain_step(self.plan().of, self._workspace, step))

    def status(self) -> Status:
        """Returns the family's models, and the steps that are still to run."""
        found = make_plan(self._loaded, self._workspace)
        return Status(self.name, tuple(step.step.id for step in found.pending), len(found.steps), self._models(found))

    @property
    def models(self) -> Models:
        """Its models by name, in their current state: the AnsNet, the anchors and the DesNets."""
        return self.status().models

    @property
    def packages(self) -> Packages:
        """Its built packages, by model and profile: "phone/phone-int8"."""
        found = {
            f"{model.name}/{place.name}": Package(place) for model in self.models.values() for place in model.placed
        }
        return Packages("package", self.name, found)

    def _models(self, plan: FamilyPlan) -> Models:
        rows = family_status(plan, self._workspace)
        out = self._workspace.out / self.name
        return Models("model", self.name, {row.name: Model(row, out / row.name / CHECKPOINT) for row in rows})

    def __repr__(self) -> str:
        chain = self._loaded.family
        return f"<Family {self.name}: {len(chain.anchors)} anchors, {len(chain.desnets)} DesNets, {self.path}>"

    def _repr_html_(self) -> str:
        return self.models._repr_html_()


def _mode(lock: str) -> LockMode:
    try:
        return LockMode(lock)
    except ValueError:
        modes = ", ".join(mode.value for mode in LockMode)
        raise BuildError(f"lock is {lock!r:.60}", hint=f"give one of {modes}") from None
