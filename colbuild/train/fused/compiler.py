"""Compiles `kernels.cpp` for this machine, in about two seconds, and loads it.

The compiled file is named by what it was made of and by its own digest: one that is damaged, or was made for another processor,
is never loaded.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import platform
import shutil
import subprocess
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Final

from colbuild.hashing import hash_file

SOURCE: Final = Path(__file__).with_name("kernels.cpp")

_ALWAYS: Final = ("-std=c++17", "-O3", "-shared", "-fPIC", "-ffp-contract=off", "-fno-math-errno", "-fno-trapping-math")
_TRIED: Final = (
    ("-march=native", "-mprefer-vector-width=512", "-fopenmp"),
    ("-march=native", "-fopenmp"),
    ("-mcpu=native", "-fopenmp"),
    ("-fopenmp",),
    ("-fopenmp-simd",),
)
"""Sets of flags, the first that a compiler knows is taken: GCC and Clang, x86 and others, with OpenMP and without."""

_PATIENCE: Final = 300.0


def find_compiler() -> str | None:
    """Returns the C++ compiler of this machine: what CXX names, or else GCC's or Clang's; None if there is none."""
    named = os.environ.get("CXX")
    return next((found for name in (named, "g++", "clang++") if name and (found := shutil.which(name))), None)


def compiled_library(cache: Path | None) -> ctypes.CDLL | None:
    """Returns the compiled kernels.

    Args:
        cache: Where they are kept for other processes; None: they are compiled for this one alone.

    Returns:
        None where there is no compiler, or nothing that works with these flags.
    """
    compiler = find_compiler()
    if compiler is None or platform.system() == "Windows":
        return None
    with tempfile.TemporaryDirectory() as temporary:
        folder = cache or Path(temporary)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            made = _kept(folder, compiler) or _compile(folder, compiler)
            return None if made is None else ctypes.CDLL(str(made))
        except OSError:
            return None


def _kept(folder: Path, compiler: str) -> Path | None:
    for path in sorted(folder.glob(f"{_key(compiler)}-*.so")):
        if path.stem.rpartition("-")[2] == _digest(path):
            return path
        with suppress(OSError):
            path.unlink()
    return None


def _compile(folder: Path, compiler: str) -> Path | None:
    with tempfile.TemporaryDirectory(dir=folder) as temporary:
        draft = Path(temporary) / "draft.so"
        for flags in _TRIED:
            command = [compiler, *_ALWAYS, *flags, str(SOURCE), *_runtime(), "-o", str(draft)]
            with suppress(subprocess.TimeoutExpired):
                done = subprocess.run(command, capture_output=True, check=False, timeout=_PATIENCE)  # noqa: S603
                if done.returncode == 0:
                    return draft.replace(folder / f"{_key(compiler)}-{_digest(draft)}.so")
    return None


def _key(compiler: str) -> str:
    """What a compiled file depends on, in short."""
    made_of = (
        SOURCE.read_text(encoding="utf-8"),
        repr((_ALWAYS, _TRIED, _runtime())),
        compiler,
        platform.machine(),
        _processor(),
    )
    return hashlib.sha256("\0".join(made_of).encode()).hexdigest()[:16]


def _runtime() -> tuple[str, ...]:
    """What to link: the libgomp that torch has loaded, which may have another name than the system's.

    Two runtimes would have a team of threads each, of which one waits in the way of the other, and `run/process/spinning.py`
    knows torch's alone.
    """
    mapped = Path("/proc/self/maps")
    lines = mapped.read_text(encoding="utf-8", errors="replace").splitlines() if mapped.exists() else []
    paths = {line[line.index("/") :] for line in lines if "/" in line}
    found = sorted(path for path in paths if Path(path).name.startswith("libgomp"))
    return ("-Wl,--as-needed", *found) if found else ()


def _digest(path: Path) -> str:
    return hash_file(path).rpartition(":")[2]


def _processor() -> str:
    """What the processor can do: code for this one fails on another that can do less."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.exists() else []
    kinds = ("model name", "flags", "Features")
    return "\n".join(sorted({line for line in lines if line.startswith(kinds)})) or platform.processor()
