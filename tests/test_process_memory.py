"""Keeping pages: in a process of its own, since the setting stays."""

from __future__ import annotations

import subprocess
import sys
from types import SimpleNamespace

import pytest

from colbuild import process_memory

_COUNT_FAULTS = """
import resource, sys
if sys.argv[1] == "keep":
    from colbuild.process_memory import keep_pages
    assert keep_pages()
import torch
def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(20):  # until the heap is as large as it will be
    torch.ones(16 << 20)
before = faults()
for _ in range(5):
    torch.ones(16 << 20)
print(faults() - before)
"""


def page_faults(mode):
    found = subprocess.run([sys.executable, "-c", _COUNT_FAULTS, mode], capture_output=True, text=True, check=True)
    return int(found.stdout)


_GIVE_BACK = """
from colbuild.process_memory import give_back_pages, keep_pages
assert keep_pages()
import torch
def held():
    return int(open("/proc/self/statm").read().split()[1]) * 4096 >> 20
torch.ones(64 << 20)
before = held()
give_back_pages()
print(before - held())
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc only")
def test_kept_pages_are_given_back():
    found = subprocess.run([sys.executable, "-c", _GIVE_BACK], capture_output=True, text=True, check=True)
    assert int(found.stdout) > 200


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc only")
def test_big_buffers_are_used_again_instead_of_given_back():
    assert page_faults("keep") < page_faults("as it is") / 10


def test_other_systems_are_left_alone(monkeypatch):
    monkeypatch.setattr(process_memory.sys, "platform", "darwin")
    assert process_memory.keep_pages() is False
    process_memory.give_back_pages()


def test_another_c_library_is_left_alone(monkeypatch):
    monkeypatch.setattr(process_memory.sys, "platform", "linux")
    monkeypatch.setattr(process_memory.ctypes, "CDLL", lambda _: object())
    assert process_memory.keep_pages() is False
    process_memory.give_back_pages()


def test_old_glibc_that_refuses_the_threshold_maps_nothing_at_all(monkeypatch):
    asked = []

    def mallopt(name, value):
        asked.append((name, value))
        return int(name != process_memory._M_MMAP_THRESHOLD)

    monkeypatch.setattr(process_memory.sys, "platform", "linux")
    monkeypatch.setattr(process_memory.ctypes, "CDLL", lambda _: SimpleNamespace(mallopt=mallopt))
    assert process_memory.keep_pages() is True
    assert (process_memory._M_MMAP_MAX, 0) in asked


def test_module_needs_no_torch():
    code = "import sys, colbuild.process_memory; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
