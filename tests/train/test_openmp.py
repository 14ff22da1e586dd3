"""Compiled kernels compute with the OpenMP runtime that is loaded, whatever it is called."""

from __future__ import annotations

import ctypes
import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest

from colbuild.process import python_command
from colbuild.train.fused.compiler import compiled_library, find_compiler
from tests.helpers.project import ROOT

SYSTEM = b"libgomp.so.1\0"
RENAMED = b"libgomp.so.7\0"


def loaded(library: str, folder: str) -> None:
    """Loads a runtime, then the kernels, and prints the files of all runtimes that are loaded."""
    ctypes.CDLL(library)
    assert compiled_library(Path(folder)) is not None
    lines = Path("/proc/self/maps").read_text().splitlines()
    print(json.dumps(sorted({line.split()[-1] for line in lines if "libgomp" in line})))


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only torch for Linux brings libgomp")
@pytest.mark.skipif(find_compiler() is None, reason="needs a C++ compiler")
def test_kernels_use_the_runtime_that_is_loaded_and_no_second_one(tmp_path):
    (torch,) = importlib.util.find_spec("torch").submodule_search_locations
    theirs = next(path for pattern in ("lib", "../torch.libs") for path in (Path(torch) / pattern).glob("libgomp*"))
    # As wheels name it, so that nothing else in a process is meant.
    renamed = tmp_path / "libgomp-7.so"
    renamed.write_bytes(theirs.read_bytes().replace(SYSTEM, RENAMED))
    command = python_command("tests.train.test_openmp:loaded", [str(renamed), str(tmp_path / "kernels")])
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == [str(renamed)]
