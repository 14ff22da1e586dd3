"""What is in no key and changes the last bits of a result stands in the record of its run."""

from __future__ import annotations

from colbuild.report.screen.explain_view import _made_with, _noted
from colbuild.run.process.circumstances import circumstances


def test_threads_processor_and_steering_variables_are_noted_and_no_others():
    told = circumstances(
        2,
        {
            "DNNL_MAX_CPU_ISA": "AVX2",
            "ONEDNN_VERBOSE": "0",
            "MKL_CBWR": "COMPATIBLE",
            "OMP_DYNAMIC": "true",
            "OMP_NUM_THREADS": "7",
            "AWS_SECRET_ACCESS_KEY": "secret",
            "HF_TOKEN": "secret",
            "PATH": "/bin",
            "TORCH_LONG": "x" * 10_000,
        },
    )
    assert told["threads"] == 2
    assert told["processor"]
    assert told["torch"]
    assert told["environment"] == {
        "DNNL_MAX_CPU_ISA": "AVX2",
        "MKL_CBWR": "COMPATIBLE",
        "OMP_DYNAMIC": "true",
        "ONEDNN_VERBOSE": "0",
        "TORCH_LONG": "x" * 200,
    }


def test_why_tells_them_with_the_micro_batch():
    made_with = circumstances(1, {"DNNL_MAX_CPU_ISA": "AVX2"}) | {"processor": "a processor", "system": "Linux x86_64"}
    line = _made_with({"made_with": made_with | {"torch": "2.9"}, "micro_batch": 4, "device": "cpu", "tokens": 9})
    assert line == "1 thread, micro_batch 4, cpu, a processor, Linux x86_64, torch 2.9, DNNL_MAX_CPU_ISA=AVX2"


def test_records_of_older_versions_tell_nothing():
    assert _noted({}) is None
    assert _made_with({"tokens": 9}) == ""
    assert _made_with({"made_with": "damaged"}) == ""
