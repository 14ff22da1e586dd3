"""What the command line calls and notebooks import: a family's plan, its build, and how it stands.

>>> loaded = load_family(Path("specs/family.yaml"))
>>> workspace = open_workspace(loaded)
>>> build(make_plan(loaded, workspace), workspace).rows
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from colbuild.errors import BuildError
from colbuild.plan.changes.saved import plan_schema_text, read_plan, write_plan
from colbuild.plan.cost.machine_resources import Resources, machine
from colbuild.plan.family_plan import FamilyPlan, Workspace, load_families, open_workspace, remote_url
from colbuild.plan.lock.lock import LockMode
from colbuild.plan.planning import check_possible, make_plan
from colbuild.progress import Report, silent
from colbuild.run.building.building import Built, build, lock_family
from colbuild.run.building.views import (
    check_plan,
    estimate_plan,
    explain_step,
    family_history,
    family_shapes,
    family_status,
    plan_since,
    plans_together,
    save_plan,
)
from colbuild.run.executor import Options
from colbuild.spec import load_family
from colbuild.spec.project.schema import schema_text

if TYPE_CHECKING:
    from colbuild.export.package.registry import Pushed
    from colbuild.export.package.verify import Verified
    from colbuild.export.runtime.bench import Speed
    from colbuild.export.runtime.generation import Generation

__all__ = [
    "Built",
    "FamilyPlan",
    "LockMode",
    "Options",
    "Resources",
    "Workspace",
    "answer",
    "bench_package",
    "build",
    "check_plan",
    "check_possible",
    "estimate_plan",
    "explain_step",
    "family_history",
    "family_shapes",
    "family_status",
    "find_package",
    "load_families",
    "load_family",
    "lock_family",
    "machine",
    "make_plan",
    "open_workspace",
    "pack_package",
    "plan_schema_text",
    "plan_since",
    "plans_together",
    "push_package",
    "read_plan",
    "remote_url",
    "save_plan",
    "schema_text",
    "verify_package",
    "write_plan",
]


def find_package(given: Path) -> Path:
    """The package that a folder is, or holds as the only one; see `colbuild.export.package.locate`.

    Raises:
        BuildError: There is no package, or several.
    """
    from colbuild.export.package.locate import find_package as find

    return find(given)


def answer(
    package: Path,
    prompt: str,
    *,
    max_tokens: int,
    temperature: float = 0.0,
    seed: int = 0,
    threads: int | None = None,
    chat: bool = True,
) -> Generation:
    """Answers a prompt in a process of its own, token by token; see `colbuild.export.runtime.guard`.

    Raises:
        BuildError: It is no package, it is damaged, or the prompt is no text or does not fit.
    """
    from colbuild.export.package.manifest import check_files, read_manifest
    from colbuild.export.runtime.guard import answer_package

    try:
        prompt.encode()
    except UnicodeEncodeError:
        raise BuildError("the prompt is no text: it has bytes that are not UTF-8", hint="write it in UTF-8") from None
    folder = find_package(package)
    manifest = read_manifest(folder)
    check_files(folder, manifest)
    asked = {"max_tokens": max_tokens, "temperature": temperature, "seed": seed, "chat": chat}
    return answer_package(folder, manifest, prompt, threads=threads, **asked)


def verify_package(package: Path) -> Verified:
    """Whether a package is whole and computes what it did when it was built; see `colbuild.export.package.verify`.

    Raises:
        BuildError: It is no package, or its manifest is damaged.
    """
    from colbuild.export.package.verify import verify_package as verify

    return verify(find_package(package))


def pack_package(package: Path, file: Path) -> str:
    """Writes a package into one file and returns its sha256; see `colbuild.export.package.packed`.

    Raises:
        BuildError: It is no package, or the file cannot be written.
    """
    from colbuild.export.package.packed import pack

    return pack(find_package(package), file)


def push_package(package: Path, reference: str, report: Report = silent) -> Pushed:
    """Sends a package to an OCI registry; see `colbuild.export.package.registry`.

    Raises:
        BuildError: It is no package, or the registry refuses it.
    """
    from colbuild.export.package.registry import push_package as push

    return push(find_package(package), reference, report)


def bench_package(
    package: Path, threads: Sequence[int | None], prompt_tokens: int = 256, new_tokens: int = 64
) -> tuple[Speed, ...]:
    """How fast a package is on this machine and how much memory it takes; see `colbuild.export.runtime.bench`.

    Raises:
        BuildError: It is no package, or it cannot be run.
    """
    from colbuild.export.runtime.bench import bench_package as bench

    return bench(find_package(package), threads, prompt_tokens, new_tokens)
