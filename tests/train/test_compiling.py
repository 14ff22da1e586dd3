"""Compiled blocks compute what eager ones do, the same way every time, and only where that pays."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import torch

from colbuild.train.compiling import (
    FUSING_WORTH,
    WORTH,
    compiler_found,
    compiling,
    eagerly,
    worth_compiling,
    worth_fusing,
)

CPU = torch.device("cpu")

TRAIN = """
import hashlib, sys
from pathlib import Path
import torch
from colbuild.train.losses.attention import use_blocked_attention
from colbuild.train.compiling import compile_blocks, compiling
from tests.train.helpers import recipe, text, tiny_llama, train, weights_of

torch.set_num_threads(1)
models = [tiny_llama(seed, dtype=torch.bfloat16) for seed in (1, 2)]
for model in models:
    use_blocked_attention(model)
how = recipe(steps=6, precision="bf16")
if sys.argv[1] == "eager":
    readings = train(*models, text, how)
else:
    with compiling(Path(sys.argv[2])):
        for model in models:
            compile_blocks(model.model.layers)
        readings = train(*models, text, how)
    assert any(Path(sys.argv[2]).rglob("*.so")), "nothing was compiled"
digest = hashlib.sha256()
for tensor in weights_of(models[0]).values():
    digest.update(tensor.view(torch.uint8).numpy().tobytes())
print(digest.hexdigest(), readings[-1].loss)
"""


def run(kind, folder):
    done = subprocess.run(
        [sys.executable, "-c", TRAIN, kind, str(folder)], capture_output=True, text=True, check=False, timeout=400
    )
    assert done.returncode == 0, done.stderr
    digest, loss = done.stdout.split()[-2:]
    return digest, float(loss)


@pytest.mark.slow
@pytest.mark.skipif(not compiler_found(CPU), reason="there is no C++ compiler")
def test_compiled_training_follows_the_eager_one_and_gives_the_same_bytes_from_a_cold_and_a_warm_cache(tmp_path):
    cold, warm = run("compiled", tmp_path / "one"), run("compiled", tmp_path / "one")
    assert cold == warm == run("compiled", tmp_path / "two")
    assert cold[1] == pytest.approx(run("eager", tmp_path)[1], rel=0.02)


def test_only_long_trainings_are_worth_it_and_only_where_it_is_known_what_it_costs():
    for kind, least in WORTH.items():
        assert worth_compiling(int(least), torch.device(kind))
        assert not worth_compiling(int(least) - 1, torch.device(kind))
    assert not worth_compiling(10**20, torch.device("mps"))
    assert worth_fusing(int(FUSING_WORTH), CPU)
    assert not worth_fusing(int(FUSING_WORTH) - 1, CPU)
    assert not worth_fusing(10**20, torch.device("cuda"))


def test_without_a_compiler_there_is_none(monkeypatch):
    from torch._inductor import cpp_builder, exc

    def missing():
        raise exc.InvalidCxxCompiler

    monkeypatch.setattr(cpp_builder, "get_cpp_compiler", missing)
    assert not compiler_found(CPU)


def test_the_environment_is_as_before_afterwards(tmp_path, monkeypatch):
    monkeypatch.delenv("TORCHINDUCTOR_CACHE_DIR", raising=False)
    with compiling(tmp_path / "kept"):
        assert os.environ["TORCHINDUCTOR_CACHE_DIR"] == str(tmp_path / "kept")
        with eagerly():
            pass
    assert "TORCHINDUCTOR_CACHE_DIR" not in os.environ
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", "/elsewhere")
    with compiling(tmp_path / "kept"):
        pass
    assert os.environ["TORCHINDUCTOR_CACHE_DIR"] == "/elsewhere"
