"""What holds of each way to store weights: the graph's name, and what the package must keep of the PyTorch model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from colbuild.export.package.parity import Bound


@dataclass(frozen=True)
class Precision:
    """What holds of one way to store weights: a line of the table below.

    Attributes:
        file: The graph's path in the package; names that Transformers.js looks for.
        bound: What the package must keep of the PyTorch model.
    """

    file: str
    bound: Bound


def _relative(most: float) -> Bound:
    return Bound(lambda parity: parity.relative_error, most, "the relative error of the logits")


PRECISIONS: Final[Mapping[str, Precision]] = {
    "fp32": Precision(
        "onnx/model.onnx", Bound(lambda parity: parity.max_difference, 1e-3, "the largest difference of a logit")
    ),
    "fp16": Precision("onnx/model_fp16.onnx", _relative(0.02)),
    # Sound packages are at 0.03 to 0.06 whether the model is trained or random; top-1 agreement and KL are not
    # comparable between the two, because a random model's tokens are all about equally likely.
    "int8": Precision("onnx/model_quantized.onnx", _relative(0.2)),
    # Four bits are a sixteenth as fine. What that costs is in the manifest; this only catches what is wrong.
    "int4": Precision("onnx/model_q4.onnx", _relative(0.7)),
    "int4-mixed": Precision("onnx/model_q4.onnx", _relative(0.7)),
}
