"""What each operation's sources are, and the committed table of their digests.

::

    colbuild/ops/distill.py ── imports, transitively, of LAYERS and FILES ──> its sources
    its sources ── parsed, without docstrings and comments ──> digest ──> compared with epochs.json

`python -m tests.ops.epochs` says which operations changed since the table was written;
`python -m tests.ops.epochs --accept` writes it anew, which states: where the same inputs now give other outputs, the
epoch in `colbuild/plan/steps/` has been raised; everywhere else the meaning is the same.
"""

from __future__ import annotations

import ast
import hashlib
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from colbuild.arch import ARCHITECTURES
from colbuild.plan.steps.operations import OPERATIONS, epochs
from colbuild.spec.sources.formats import FORMATS

ROOT = Path(__file__).resolve().parents[2]
TABLE = Path(__file__).with_name("epochs.json")
LAYERS = ("ops", "fetch", "export", "train", "weights", "arch")
"""Packages whose code decides what an operation's result is. What lies below them is the same for every operation; how
results are found and stored has versions of its own."""

FILES = ("plan.workload.at_once",)
"""Modules below these packages that decide results all the same."""

NAMED: Mapping[str, Sequence[str]] = {
    "colbuild.arch.known": [f"colbuild.arch.known.{name}" for name in ARCHITECTURES],
    "colbuild.fetch.texts.readers": [row.reader for row in FORMATS.values()],
}
"""Module -> the modules that it imports by a name that stands in a table."""

_DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)


@dataclass(frozen=True)
class Entry:
    """One line of the table."""

    epoch: int
    digest: str


def sources(op: str) -> list[Path]:
    """The files whose code an operation runs, sorted; those of the packages they lie in among them.

    Raises:
        FileNotFoundError: The operation has no module.
    """
    found: set[Path] = set()
    pending = [OPERATIONS[op].module]
    if _file(OPERATIONS[op].module) is None:
        raise FileNotFoundError(f"{op} has no module {OPERATIONS[op].module}")
    while pending:
        module = pending.pop()
        path = _file(module)
        if path is not None and path not in found and _counts(module):
            found.add(path)
            pending += [*_imports(path), *NAMED.get(module, ()), module.rpartition(".")[0]]
    return sorted(found)


def digest(op: str) -> str:
    """The sha256 of an operation's code: the same for another format, docstring or comment, and for every Python."""
    code = {path.relative_to(ROOT).as_posix(): normal(path.read_text(encoding="utf-8")) for path in sources(op)}
    return hashlib.sha256(json.dumps(code, sort_keys=True).encode()).hexdigest()


def normal(text: str) -> str:
    """A module's code in a form that says what it does and nothing else."""
    tree = ast.parse(text)
    for node in ast.walk(tree):
        if isinstance(node, _DOCUMENTED):
            # Also the plain strings that document an attribute.
            node.body = [statement for statement in node.body if not _is_text(statement)]
    return _written(tree)


def current() -> dict[str, Entry]:
    """The table as it would be written now."""
    return {op: Entry(epoch, digest(op)) for op, epoch in epochs().items()}


def committed() -> dict[str, Entry]:
    """The table as it is; empty where there is none."""
    if not TABLE.exists():
        return {}
    return {op: Entry(**entry) for op, entry in json.loads(TABLE.read_text(encoding="utf-8")).items()}


def problems(now: dict[str, Entry], before: dict[str, Entry]) -> list[str]:
    """What the author has to decide or to write down, one line for each operation."""
    found = [f"{op}: no longer an operation" for op in sorted(before.keys() - now.keys())]
    for op, entry in now.items():
        old = before.get(op)
        if old is None:
            found.append(f"{op}: not in the table yet")
        elif entry.epoch < old.epoch:
            found.append(f"{op}: its epoch went from {old.epoch} back to {entry.epoch}; it only rises")
        elif entry.digest != old.digest and entry.epoch == old.epoch:
            found.append(
                f"{op}: its sources changed, its epoch did not; if the same inputs now give other outputs, raise it"
            )
        elif entry != old:
            found.append(f"{op}: its epoch rose from {old.epoch} to {entry.epoch}, which the table does not say yet")
    return found


def accept(now: dict[str, Entry]) -> None:
    """Writes the table."""
    text = json.dumps({op: asdict(entry) for op, entry in now.items()}, indent=2, sort_keys=True)
    TABLE.write_text(text + "\n", encoding="utf-8")


def _counts(module: str) -> bool:
    return module.startswith(tuple(f"colbuild.{layer}." for layer in LAYERS)) or module in {
        f"colbuild.{name}" for name in (*LAYERS, *FILES)
    }


def _file(module: str) -> Path | None:
    """A module's file; None for what is no module of ours."""
    stem = ROOT.joinpath(*module.split("."))
    for path in (stem / "__init__.py", stem.with_suffix(".py")):
        if path.is_file():
            return path
    return None


def _imports(path: Path) -> Iterator[str]:
    """Every name that a file imports, those inside functions too; "from a import b" may mean the module a.b."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            if node.level:
                raise ValueError(f"{path} imports relatively, which its sources are not found by")
            yield node.module or ""
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def _is_text(statement: ast.stmt) -> bool:
    return (
        isinstance(statement, ast.Expr)
        and isinstance(statement.value, ast.Constant)
        and isinstance(statement.value.value, str)
    )


def _written(value: object) -> str:
    """A syntax tree as text. `ast.dump` is another one in each Python, which adds fields: empty ones are left out here."""
    if isinstance(value, ast.AST):
        fields = [(name, getattr(value, name, None)) for name in value._fields if name not in ("ctx", "kind")]
        inside = ",".join(f"{name}={_written(field)}" for name, field in fields if field not in (None, []))
        return f"{type(value).__name__}({inside})"
    if isinstance(value, list):
        return f"[{','.join(map(_written, value))}]"
    return repr(value)


if __name__ == "__main__":
    if "--accept" in sys.argv[1:]:
        accept(current())
    undecided = problems(current(), committed())
    print("\n".join(undecided) or "the table says what the sources are")
    sys.exit(1 if undecided else 0)
