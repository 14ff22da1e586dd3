"""colbuild: a declarative build system for families of language models.

The names in `__all__` are the Python interface, which docs/python.md explains; the other names of the table below are what the
command line calls. A name's module is imported when the name is first used, so that `import colbuild` imports nothing.
"""

import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    # For type checkers and editors; a test holds it to the table below.
    from colbuild.errors import ColbuildError as ColbuildError
    from colbuild.export.package.locate import find_package as find_package
    from colbuild.export.package.packed import pack as pack
    from colbuild.export.package.registry import push_package as push_package
    from colbuild.export.package.verify import verify_package as verify_package
    from colbuild.export.runtime.bench import bench_package as bench_package
    from colbuild.interface.checkpoints import Checkpoint as Checkpoint
    from colbuild.interface.checkpoints import interpolate as interpolate
    from colbuild.interface.checkpoints import order as order
    from colbuild.interface.families import Family as Family
    from colbuild.interface.families import load as load
    from colbuild.interface.packages import Package as Package
    from colbuild.interface.packages import answer as answer
    from colbuild.interface.packages import export as export
    from colbuild.interface.packages import generate as generate
    from colbuild.interface.packages import verify as verify
    from colbuild.interface.stores import find_store as find_store
    from colbuild.interface.stores import required_remote as required_remote
    from colbuild.plan.cost.machine_resources import Resources as Resources
    from colbuild.plan.cost.machine_resources import machine as machine
    from colbuild.plan.family_plan import FamilyPlan as FamilyPlan
    from colbuild.plan.family_plan import Workspace as Workspace
    from colbuild.plan.family_plan import load_families as load_families
    from colbuild.plan.family_plan import open_workspace as open_workspace
    from colbuild.plan.family_plan import remote_url as remote_url
    from colbuild.plan.lock.lock import LockMode as LockMode
    from colbuild.plan.planning import check_possible as check_possible
    from colbuild.plan.planning import make_plan as make_plan
    from colbuild.plan.saved.plan_file import plan_schema_text as plan_schema_text
    from colbuild.plan.saved.plan_file import read_plan as read_plan
    from colbuild.plan.saved.plan_file import write_plan as write_plan
    from colbuild.run.build_request import Options as Options
    from colbuild.run.building.ansnet_forms import planned_alternatives as planned_alternatives
    from colbuild.run.building.building import build as build
    from colbuild.run.building.family_lock import lock_family as lock_family
    from colbuild.run.building.family_rows import family_shapes as family_shapes
    from colbuild.run.building.family_rows import family_status as family_status
    from colbuild.run.building.plan_questions import check_plan as check_plan
    from colbuild.run.building.plan_questions import estimate_plan as estimate_plan
    from colbuild.run.building.plan_questions import explain_step as explain_step
    from colbuild.run.building.plan_questions import plan_since as plan_since
    from colbuild.run.building.plan_questions import plans_together as plans_together
    from colbuild.run.building.plan_questions import save_plan as save_plan
    from colbuild.run.history.history import family_history as family_history
    from colbuild.run.sharing.listing import list_store as list_store
    from colbuild.run.sharing.pinning import pin_digest as pin_digest
    from colbuild.run.sharing.pinning import pin_result as pin_result
    from colbuild.run.sharing.sharing import pull_family as pull_family
    from colbuild.run.sharing.sharing import push_family as push_family
    from colbuild.run.sharing.verifying import verify_store as verify_store
    from colbuild.spec.project.load import load_family as load_family
    from colbuild.spec.project.schema import schema_text as schema_text
    from colbuild.store import Store as Store
    from colbuild.store.collecting.collector import collect as collect
    from colbuild.store.collecting.garbage import Policy as Policy
    from colbuild.store.collecting.pins import is_prefix as is_prefix
    from colbuild.store.collecting.pins import unpin as unpin

__version__ = "0.1.0"
__all__ = [
    "Checkpoint",
    "ColbuildError",
    "Family",
    "Package",
    "export",
    "generate",
    "interpolate",
    "load",
    "order",
    "verify",
]

_NAMES = {
    "colbuild.errors": ("ColbuildError",),
    "colbuild.export.package.locate": ("find_package",),
    "colbuild.export.package.packed": ("pack",),
    "colbuild.export.package.registry": ("push_package",),
    "colbuild.export.package.verify": ("verify_package",),
    "colbuild.export.runtime.bench": ("bench_package",),
    "colbuild.interface.checkpoints": ("Checkpoint", "interpolate", "order"),
    "colbuild.interface.families": ("Family", "load"),
    "colbuild.interface.packages": ("Package", "answer", "export", "generate", "verify"),
    "colbuild.interface.stores": ("find_store", "required_remote"),
    "colbuild.plan.cost.machine_resources": ("Resources", "machine"),
    "colbuild.plan.family_plan": ("FamilyPlan", "Workspace", "load_families", "open_workspace", "remote_url"),
    "colbuild.plan.lock.lock": ("LockMode",),
    "colbuild.plan.planning": ("check_possible", "make_plan"),
    "colbuild.plan.saved.plan_file": ("plan_schema_text", "read_plan", "write_plan"),
    "colbuild.run.build_request": ("Options",),
    "colbuild.run.building.ansnet_forms": ("planned_alternatives",),
    "colbuild.run.building.building": ("build",),
    "colbuild.run.building.family_lock": ("lock_family",),
    "colbuild.run.building.family_rows": ("family_shapes", "family_status"),
    "colbuild.run.building.plan_questions": (
        "check_plan",
        "estimate_plan",
        "explain_step",
        "plan_since",
        "plans_together",
        "save_plan",
    ),
    "colbuild.run.history.history": ("family_history",),
    "colbuild.run.sharing.listing": ("list_store",),
    "colbuild.run.sharing.pinning": ("pin_digest", "pin_result"),
    "colbuild.run.sharing.sharing": ("pull_family", "push_family"),
    "colbuild.run.sharing.verifying": ("verify_store",),
    "colbuild.spec.project.load": ("load_family",),
    "colbuild.spec.project.schema": ("schema_text",),
    "colbuild.store": ("Store",),
    "colbuild.store.collecting.collector": ("collect",),
    "colbuild.store.collecting.garbage": ("Policy",),
    "colbuild.store.collecting.pins": ("is_prefix", "unpin"),
}
"""Module -> its names that are reached as `colbuild.<name>`."""

_MODULES = {name: module for module, names in _NAMES.items() for name in names}


def __getattr__(name: str) -> object:
    """Imports what a name of the table stands for, and keeps it."""
    if name not in _MODULES:
        raise AttributeError(f"module 'colbuild' has no attribute '{name}'")
    from importlib import import_module

    found = getattr(import_module(_MODULES[name]), name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    """The names of the Python interface."""
    return [*__all__, "__version__"]


class _Root(type(sys)):  # type: ignore[misc]  # `types.ModuleType`, without an import
    """This module, whose function `export` is not hidden by the package of the same name when that is imported."""

    def __setattr__(self, name: str, value: object) -> None:
        if not (name in _MODULES and isinstance(value, type(sys))):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Root
