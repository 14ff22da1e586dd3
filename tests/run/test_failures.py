"""What went wrong inside a step, in words for the user."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from colbuild.run.process.failures import OutOfMemoryError, UnexpectedError, explain, is_transient

HERE = Path("output")
LOG = Path("step.log")
ON_A_GPU = (
    "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 79.19 GiB of which 1.06 GiB is free."
)


def real_failure():
    """What torch raises on a CPU that is asked for a petabyte."""
    with pytest.raises(RuntimeError) as caught:
        torch.empty(10**15, dtype=torch.uint8)
    return caught.value


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (torch.OutOfMemoryError(ON_A_GPU), "the GPU has not enough memory for another 2.00 GiB"),
        (
            RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate"),
            "the GPU has not enough memory",
        ),
        (RuntimeError("MPS backend out of memory (MPS allocated: 5 GB)"), "the GPU has not enough memory"),
        (MemoryError(), "there is not enough memory"),
        (RuntimeError("std::bad_alloc"), "there is not enough memory"),
    ],
)
def test_memory_that_ran_out_is_told_with_the_settings_that_help(error, message):
    found = explain(error, HERE, LOG, trains=True)
    assert isinstance(found, OutOfMemoryError)
    assert found.message == message
    for setting in ("micro_batch", "gradient_checkpointing", "sequence"):
        assert setting in found.hint
    assert is_transient(found)


def test_torch_s_own_allocator_is_understood():
    found = explain(real_failure(), HERE, LOG, trains=True)
    assert isinstance(found, OutOfMemoryError)
    assert found.message == "there is not enough memory for another 1000.0 TB"


def test_a_step_without_a_recipe_is_not_told_to_change_it():
    found = explain(MemoryError(), HERE, LOG)
    assert isinstance(found, OutOfMemoryError)
    assert found.hint == "close other programs; finished steps are kept"


def test_what_nobody_expected_points_to_the_log():
    found = explain(ZeroDivisionError("division by zero"), HERE, LOG, trains=True)
    assert isinstance(found, UnexpectedError)
    assert "step.log" in found.hint
