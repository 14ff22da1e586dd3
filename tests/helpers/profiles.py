"""What is resolved of a profile that says no more than its precision."""

from __future__ import annotations

from typing import Any

INT8: dict[str, Any] = {
    "format": "onnx",
    "precision": "int8",
    "operators": "contrib",
    "opset": None,
    "block": 32,
    "keep_8bit": [],
    "embedding_bits": 8,
    "calibration": 4096,
    "recover": None,
    "context": 2048,
    "static": None,
    "threads": None,
    "bandwidth": None,
    "limits": {
        "max_package": None,
        "max_memory": None,
        "max_perplexity_increase": None,
        "min_decode_tps": None,
        "when_broken": "fail",
    },
}
